"""Take-downs of odd URLs: however a list and a take-down write an image's URL, it goes."""

import pytest
import yaml
from odd.lists import table, url_list, urls

from index_build.upkeep.gc import collect
from xmore.memory.snapshot import open_snapshot, resolve_current

# As in the list, and as it is taken down, after the image's own URL.
FORMS = [("?a b", "?a%20b"), ("?ü", "?%C3%BC"), ("\r\n", "  # by letter")]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_url_is_taken_down_in_any_of_its_forms(world, xmore, tmp_path, swapped):
    forms = [*([form[::-1] for form in FORMS[:2]] if swapped else FORMS[:2]), FORMS[2]]
    listed = [
        url + form for url, form in zip(urls(), [*(one for one, _ in forms), ""], strict=True)
    ]
    source = url_list(lambda: table(url=listed)(), "l.parquet")(tmp_path)
    bounds = {"timeout": 5, "threads": 4, "processes": 1, "retries": 0, "allow_private": True}
    config = world.memory_config().model_dump(mode="json", exclude_none=True)
    config |= {"memory": str(tmp_path / "memory"), "sources": [source], "download": bounds}
    down = tmp_path / "down.txt"
    down.write_text("".join(f"{u}{form}\n" for u, (_, form) in zip(urls(), forms, strict=False)))
    path = tmp_path / "memory.yaml"
    path.write_text(yaml.safe_dump(config))
    first = xmore("reindex", path)
    assert first.returncode == 0, first
    old = resolve_current(tmp_path / "memory")
    assert open_snapshot(tmp_path / "memory", old).rows == 4
    path.write_text(yaml.safe_dump(config | {"take_down": str(down)}))
    second = xmore("reindex", path)
    assert second.returncode == 0, second
    now = open_snapshot(tmp_path / "memory", resolve_current(tmp_path / "memory"))
    assert (now.rows, now.manifest["failures"]) == (1, {"taken down": 3})
    freed = collect(tmp_path / "memory", keep=5, dry_run=False)
    assert freed.snapshots == {old: "holds rows that were taken down"} and freed.rows == 3
