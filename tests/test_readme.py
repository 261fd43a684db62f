"""The README's SQL: each question runs, and its answer has the columns that the README shows."""

import re
from pathlib import Path

import pytest

from xmore.results.runs import load_run
from xmore.results.views import open_views

README = (Path(__file__).parents[1] / "README.md").read_text()
QUESTIONS = re.findall(r"```sql\n(.*?)```\s*```text\n(.*?)```", README, re.S)


def test_there_are_seven_questions():
    assert len(QUESTIONS) == 7


@pytest.mark.parametrize(("query", "shown"), QUESTIONS)
def test_a_question_runs_and_answers_as_shown(done, query, shown):
    connection = open_views(load_run(done.config.results, done.name))
    answer = connection.sql(query.replace("'lite2'", "'lite0'"))
    assert answer.columns == re.split(r"\s{2,}", shown.splitlines()[0].strip())
    answer.fetchall()
