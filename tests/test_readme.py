"""The README is short and names every page; its SQL and that of docs/questions.md runs."""

import re
from pathlib import Path

import pytest

from xmore.results.runs import load_run
from xmore.results.views import open_views

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "questions.md").read_text()
QUESTIONS = re.findall(r"```sql\n(.*?)```\s*```text\n(.*?)```", PAGE, re.S)
ONE_LINERS = re.findall(r'^ {4}(?:\S*xmore sql latest|echo) "(.+?)"', README + PAGE, re.M)


def test_there_are_seven_questions():
    assert len(QUESTIONS) == 7


@pytest.mark.parametrize(("query", "shown"), QUESTIONS)
def test_a_question_runs_and_answers_as_shown(done, query, shown):
    connection = open_views(load_run(done.config.results, done.name))
    answer = connection.sql(query.replace("'lite2'", "'lite0'"))
    assert answer.columns == re.split(r"\s{2,}", shown.splitlines()[0].strip())
    answer.fetchall()


def test_the_one_liners_run(done):
    assert len(ONE_LINERS) == 4
    connection = open_views(load_run(done.config.results, done.name))
    for query in ONE_LINERS:
        assert connection.sql(query).fetchall(), query


def test_the_readme_is_short_and_names_every_page():
    assert len(README.splitlines()) < 200
    pages = {str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")}
    assert pages - set(re.findall(r"\]\(([^)#]+)", README)) == set()
