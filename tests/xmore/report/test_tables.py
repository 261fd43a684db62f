"""What the report's tables choose."""

import csv
import io

from xmore.report.table import as_csv, as_markdown
from xmore.report.tables import CLASSES, Table, gains


def test_the_classes_that_are_helped_and_hurt_most():
    points = range(CLASSES + 5, -CLASSES - 6, -1)  # best first, as `by_class` is
    rows = [("d", "m", f"class {p}", 4, 0.5, 0.5, p) for p in points]
    ((dataset, model, chosen),) = gains(Table("t", "t", "", [], rows))
    most = [*range(CLASSES + 5, 5, -1), *range(-6, -CLASSES - 6, -1)]
    assert (dataset, model) == ("d", "m") and [gain for *_, gain in chosen] == most


def test_texts_in_csv_are_no_formulas_and_numbers_stay_numbers():
    texts = ["=1+1", "+1", "-2", "@x", "a=b", "\x1b[31m", "\u202ex"]
    rows = [(text, -0.5) for text in texts]
    made = as_csv(Table("t", "t", "", [("class", "text"), ("gain", "points")], rows))
    found = list(csv.reader(io.StringIO(made)))[1:]
    assert [text for text, _ in found] == [
        "'=1+1", "'+1", "'-2", "'@x", "a=b", "\ufffd[31m", "\ufffdx",
    ]  # fmt: skip
    assert {number for _, number in found} == {"-0.5"}


def test_texts_in_markdown_are_no_markup():
    row = ("a & b < c | <i>*x*</i>\n[y](z)",)
    made = as_markdown(Table("t", "t", "p < 0.05", [("class", "text")], [row]))
    assert "p &#60; 0.05" in made
    assert made.splitlines()[-1] == (
        r"| a &#38; b &#60; c &#124; &#60;i&#62;\*x\*&#60;/i&#62; \[y\](z) |"
    )
