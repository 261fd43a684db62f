"""Every kind of source, as a miniature that tells of the same twenty photos."""

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml

from flows.benchmark import xmore_benchmark
from xmore.dataset import listing, load_card, open_images, scan
from xmore.errors import DatasetError
from xmore.runs import load_run
from xmore.store import read_rows
from xmore.views import open_views

NAMES = ["bird", "flower", "fruit", "insect", "tool"]


def photos(root: Path) -> list[tuple[str, int]]:
    """(path under the root, label) of each photo."""
    paths = sorted(root.rglob("*.jpg"))
    return [(p.relative_to(root).as_posix(), NAMES.index(p.parent.name)) for p in paths]


def write_webdataset(root: Path, target: Path, shards: int = 2) -> None:
    """CLIP_benchmark's layout over the photos under `root`."""
    (target / "test").mkdir(parents=True)
    (target / "test" / "nshards.txt").write_text(f"{shards}\n")
    (target / "classnames.txt").write_text("\n".join(NAMES) + "\n")
    (target / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    for shard in range(shards):
        with tarfile.open(target / "test" / f"{shard}.tar", "w") as tar:
            for i, (path, label) in enumerate(photos(root)[shard::shards]):
                jpeg = (root / path).read_bytes()
                for name, data in ((f"s{i:07d}.jpg", jpeg), (f"s{i:07d}.cls", b"%d" % label)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def write_coop(root: Path, target: Path) -> None:
    (target / "jpg").parent.mkdir(parents=True, exist_ok=True)
    (target / "jpg").symlink_to(root)
    rows = [[path, label, NAMES[label]] for path, label in photos(root)]
    split = {"train": [["no/such.jpg", 0, "bird"]], "val": [], "test": rows}
    (target / "split_zhou_Mini.json").write_text(json.dumps(split))


def write_table(root: Path, target: Path) -> None:
    with target.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label"])
        writer.writerows((path, NAMES[label]) for path, label in photos(root))


@pytest.fixture
def cards(world, tmp_path) -> dict[str, Path]:
    """A card of each kind over the world's photos."""
    queries = world.root / "queries"
    write_webdataset(queries, tmp_path / "wds")
    for path, _ in photos(queries):  # a copy: readers do not follow links out of the root
        (tmp_path / "coop" / "jpg" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "coop" / "jpg" / path).write_bytes((queries / path).read_bytes())
    rows = [[path, label, NAMES[label]] for path, label in photos(queries)]
    split = {"train": [["no/such.jpg", 0, "bird"]], "val": [], "test": rows}
    (tmp_path / "coop" / "split_zhou_Mini.json").write_text(json.dumps(split))
    write_table(queries, tmp_path / "coop" / "jpg" / "test.csv")
    kinds = {
        "folder": (queries, {"kind": "folder"}),
        "coop": ("coop", {"kind": "coop", "split": "split_zhou_Mini.json", "images": "jpg"}),
        "table": ("coop/jpg", {"kind": "table", "file": "test.csv"}),
        "webdataset": ("wds", {"kind": "webdataset"}),
        "torchvision": (queries, {"kind": "torchvision", "dataset": "ImageFolder"}),
    }
    for kind, (root, source) in kinds.items():
        card = {"name": kind, "root": str(root), "source": source}
        card["expected"] = {"classes": 5, "images": 20}
        (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(card))
    return {kind: tmp_path / f"{kind}.yaml" for kind in kinds}


def test_each_kind_runs_through_the_whole_benchmark_to_the_same_numbers(world, cards, tmp_path):
    config = world.config(
        tmp_path / "results",
        datasets=[str(path) for path in cards.values()],
        adjustments=["global"],
    )
    run = load_run(config.results, xmore_benchmark.fn(config))
    rows = open_views(run).execute(
        "select method, list(distinct top1) as top1, list(distinct top5), count(*) "
        "from leaderboard group by method"
    )
    found = rows.fetchall()
    assert {method for method, *_ in found} == {"clip", "caption-ensemble", "equal", "xmore"}
    for method, top1, top5, kinds in found:
        assert (len(top1), len(top5), kinds) == (1, 1, 5), method
    labels = {
        ref.dataset: sorted(read_rows(ref)["class_name"].to_pylist())
        for ref in run.artifacts
        if ref.stage == "queries"
    }
    assert len({tuple(names) for names in labels.values()}) == 1 and labels["coop"][0] == "bird"


def test_a_second_scan_reads_no_file_again(cards, tmp_path):
    for kind in ("coop", "webdataset"):
        card = load_card(str(cards[kind]))
        first = scan(card, tmp_path / "cache", 0)
        for image in [*tmp_path.glob("coop/jpg/*/*.jpg"), *tmp_path.glob("wds/test/*.tar")]:
            times = image.stat().st_atime_ns, image.stat().st_mtime_ns
            image.write_bytes(b"\0" * image.stat().st_size) if kind == "coop" else None
            import os

            os.utime(image, ns=times)
        assert kind != "coop" or scan(card, tmp_path / "cache", 0) == first
