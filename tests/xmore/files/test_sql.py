"""What is said of a wrong query."""

import duckdb
import pytest

from xmore.files.sql import complaint


@pytest.mark.parametrize(
    "query, says",
    [
        ("select metod from (select 1 as method)", 'in FROM clause. Candidate bindings: "method"'),
        ("from duckdb_table", "name duckdb_table does not exist. Did you mean"),
        ("select k from (select 1 as top1)", 'in FROM clause. Candidate bindings: "top1"'),
        ("selec 1", 'syntax error at or near "selec". See the reference.'),
    ],
)
def test_a_complaint_is_one_line_with_the_names_that_are_meant(query, says):
    with pytest.raises(duckdb.Error) as raised:
        duckdb.execute(query)
    told = complaint(raised.value, "See the reference.")
    assert says in told and "\n" not in told and "!." not in told
