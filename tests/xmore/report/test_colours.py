"""No plot has more than eight colours, whatever the number of methods."""

import re

import pytest

from xmore.report.colours import COLOURS, GREY, MOST, PAPERS, styles
from xmore.report.figures import IntervalEstimate, accuracies

NAMES = [*PAPERS, "tpt", *(f"mine-{i:02d}" for i in range(9))]


@pytest.mark.parametrize("datasets", [["a"], ["a", "b"]])
def test_a_plot_of_many_methods_has_eight_colours_and_grey(datasets):
    drawn = styles({name: 0.5 + i / 100 for i, name in enumerate(NAMES)})
    found = [IntervalEstimate(d, name, 0.5, 0.4, 0.6) for d in datasets for name in NAMES]
    svg = accuracies(found, drawn).svg
    used = set(re.findall(r"stroke: (#\w{6})", svg)) - {"#222222", "#b0b0b0"}
    assert len(used) == MOST + 1 and GREY in used
    assert {COLOURS[name] for name in PAPERS} < used
    assert drawn["mine-08"].colour not in {GREY, *COLOURS.values()}, "the best of the others"
    assert [name for name in NAMES if name not in svg] == []


def test_what_is_grey_is_named_and_has_a_mark_of_its_own():
    drawn = styles({name: 0.5 + i / 100 for i, name in enumerate(NAMES)})
    assert drawn.told(["clip", "mine-08"]) == ""
    told = drawn.told(["clip", "tpt (n = 32)", "mine-00", "mine-00"])
    assert told == " In grey, told by their marks, beyond 8 methods: tpt (n = 32), mine-00."
    grey = [drawn[name].mark for name in NAMES if drawn[name].colour == GREY]
    assert len(set(grey)) == len(grey) == len(NAMES) - MOST


def test_few_methods_are_all_in_colour():
    drawn = styles({name: 0.5 for name in NAMES[:8]})
    assert drawn.told(NAMES[:8]) == "" and {drawn[name].mark for name in NAMES[:8]} == {"o"}
