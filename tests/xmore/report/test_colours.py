"""No plot has more than eight colours, whatever the number of methods."""

import re
from pathlib import Path

import numpy as np
import pytest

from xmore.report.colours import COLOURS, GREY, MOST, PAPERS, styles
from xmore.report.curves import Curve
from xmore.report.figures import IntervalEstimate, accuracies
from xmore.report.headline import Headline
from xmore.report.plots import _calibration, _Drawing
from xmore.results.runs import Run

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


def test_calibration_is_drawn_of_methods_in_colour_and_says_the_most_images():
    run = Run(Path("runs/a"), {}, {"name": "memory"}, "now")
    drawn = styles({name: 0.5 + i / 100 for i, name in enumerate(NAMES)})
    of = Headline("xmore", "minmax", 16, 0)
    ends = np.array([0.0, 100.0])
    curves = [
        Curve("a", "m", 32 if name == NAMES[-1] else 217, name, ends, ends, ends, ends)
        for name in NAMES
    ]
    drawing = _Drawing(run, of, drawn)
    (plot,) = drawing.each("reliability", drawing.in_colour(curves), _calibration)
    assert GREY not in plot.drawing.svg and "mine-08" in plot.drawing.svg
    assert "mine-00" not in plot.drawing.svg and "In grey" not in plot.reading
    assert plot.note.startswith("a (n = 217)")
