"""Which folders are snapshots."""

from index_build.base import history


def test_what_a_killed_gc_has_half_deleted_is_no_snapshot(tmp_path):
    for name in ("whole", ".half.removed", "bad.broken-1"):
        (tmp_path / "snapshots" / name).mkdir(parents=True)
        (tmp_path / "snapshots" / name / "manifest.json").touch()
    (tmp_path / "snapshots" / "no-manifest").mkdir()
    assert history.names(tmp_path) == ["whole"]
