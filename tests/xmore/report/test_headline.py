"""The sentence of the report, when its interval and its test seem to disagree."""

import pytest

from xmore.report.headline import Headline, _sentence

OF = Headline("xmore", "minmax", 16, 0)


@pytest.mark.parametrize(
    ("less", "more", "p", "ends"),
    [
        (0.01, 0.09, 0.01, "): statistically significant."),
        (-0.01, 0.09, 0.3, "): not statistically significant."),
        (
            -0.1,
            -0.01,
            1.0,
            "significant, though the interval, of this comparison alone, leaves 0 out.",
        ),
    ],
)
def test_an_interval_without_0_and_no_significance_is_explained(less, more, p, ends):
    told = _sentence(OF, "pets", "RN50", 42, 0.5, 0.4, 0.6, (less + more) / 2, less, more, p)
    assert told.endswith(ends), told
