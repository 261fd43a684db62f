import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xmore.methods.ranking import best_labels

FEW = st.sampled_from([0.0, -0.0, 0.25, 0.5, np.nextafter(0.5, 1), 1.0, -1.0, np.inf, -np.inf])
ANY = st.floats(allow_nan=False)
SHAPE = st.tuples(st.integers(1, 6), st.integers(1, 12))


def sorted_labels(scores: np.ndarray, top: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :top]


@given(arrays(np.float64, SHAPE, elements=FEW | ANY), st.integers(1, 6))
def test_the_best_labels_are_those_of_a_full_sort(scores, top):
    assert best_labels(scores, top).tolist() == sorted_labels(scores, top).tolist()


@given(arrays(np.float64, SHAPE, elements=FEW | ANY | st.just(np.nan)))
def test_a_row_with_nan_changes_no_other(scores):
    whole = ~np.isnan(scores).any(1)
    found = best_labels(scores, 5)
    assert found[whole].tolist() == sorted_labels(scores[whole], 5).tolist()
    assert ((found >= 0) & (found < scores.shape[1])).all()


@pytest.mark.parametrize("classes", [2, 1000])
def test_many_queries_with_ties_are_ranked_as_by_a_full_sort(classes):
    rng = np.random.default_rng(classes)
    scores = rng.integers(0, 40, (500, classes)) / 64
    before = scores.copy()
    assert (best_labels(scores, 5) == sorted_labels(scores, 5)).all()
    assert (scores == before).all()
