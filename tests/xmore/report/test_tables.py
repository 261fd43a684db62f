"""What the report's tables choose."""

from xmore.report.tables import CLASSES, Table, gains


def test_the_classes_that_are_helped_and_hurt_most():
    points = range(CLASSES + 5, -CLASSES - 6, -1)  # best first, as `by_class` is
    rows = [("d", "m", f"class {p}", 4, 0.5, 0.5, p) for p in points]
    ((dataset, model, chosen),) = gains(Table("t", "t", "", [], rows))
    most = [*range(CLASSES + 5, 5, -1), *range(-6, -CLASSES - 6, -1)]
    assert (dataset, model) == ("d", "m") and [gain for *_, gain in chosen] == most
