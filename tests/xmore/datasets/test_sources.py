"""Every kind of source, as a miniature that tells of the same twenty photos."""

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml

from flows.benchmark import xmore_benchmark
from xmore.datasets.card import load_card
from xmore.datasets.scan import listing, open_images, scan
from xmore.files.errors import DatasetError
from xmore.images.decode import decode_image
from xmore.images.readers import Files, Tars
from xmore.results.runs import load_run
from xmore.results.views import open_views
from xmore.store.artifacts import read_rows

NAMES = ["bird", "flower", "fruit", "insect", "tool"]


def photos(root: Path) -> list[tuple[str, int]]:
    """(path under the root, label) of each photo."""
    paths = sorted(root.rglob("*.jpg"))
    return [(p.relative_to(root).as_posix(), NAMES.index(p.parent.name)) for p in paths]


def write_coop(root: Path, target: Path) -> None:
    for path, _ in photos(root):  # a copy: readers do not follow links out of the root
        (target / "jpg" / path).parent.mkdir(parents=True, exist_ok=True)
        (target / "jpg" / path).write_bytes((root / path).read_bytes())
    rows = [[path, label, NAMES[label]] for path, label in photos(root)]
    split = {"train": [["no/such.jpg", 0, "bird"]], "val": [], "test": rows}
    (target / "split_zhou_Mini.json").write_text(json.dumps(split))


def write_table(root: Path, target: Path) -> None:
    with target.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label"])
        writer.writerows((path, NAMES[label]) for path, label in photos(root))


@pytest.fixture
def cards(world, tiny_webdataset, tmp_path) -> dict[str, Path]:
    """A card of each kind over the world's photos."""
    queries = world.root / "queries"
    shutil.copytree(tiny_webdataset, tmp_path / "wds")
    write_coop(queries, tmp_path / "coop")
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


@pytest.mark.parametrize("kind", ["coop", "webdataset"])
def test_a_second_scan_reads_no_image_again(cards, tmp_path, monkeypatch, kind):
    card = load_card(str(cards[kind]))
    first = scan(card, tmp_path / "cache", 0)
    for reader in (Files, Tars):
        monkeypatch.setattr(reader, "read", lambda self, uri: b"")
    assert scan(card, tmp_path / "cache", 0) == first
    changed = next(path for path in tmp_path.glob("*/*/1.tar") or ())
    changed.touch()
    for path in tmp_path.glob("coop/jpg/tool/*.jpg"):
        path.touch()
    assert {cause for _, cause in scan(card, tmp_path / "cache", 1).rejected} == {"empty file"}


def test_readers_hand_out_the_same_pixels(cards):
    pictures = set()
    for path in cards.values():
        card = load_card(str(path))
        reader, uri = open_images(card), min(listing(card)[1].labels)
        pictures.add(decode_image(reader.read(uri)).tobytes())
    assert len(pictures) == 1


def edit_split(change):
    def spoil(folder: Path) -> None:
        path = folder / "coop" / "split_zhou_Mini.json"
        split = json.loads(path.read_text())
        change(split)
        path.write_text(json.dumps(split))

    return spoil


def edit_card(kind: str, **changes):
    def spoil(folder: Path) -> None:
        path = folder / f"{kind}.yaml"
        card = yaml.safe_load(path.read_text())
        card["source"] |= changes.pop("source", {})
        path.write_text(yaml.safe_dump(card | changes))

    return spoil


def write(path: str, text: str):
    return lambda folder: (folder / path).write_text(text)


def retar(*members: tuple[str, bytes]):
    def spoil(folder: Path) -> None:
        with tarfile.open(folder / "wds" / "test" / "0.tar", "w") as tar:
            for name, data in members:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))

    return spoil


BAD = {
    "a wrong root": ("coop", edit_card("coop", root="nowhere"), ["no folder", "nowhere"]),
    "a missing split": ("coop", lambda f: (f / "coop/split_zhou_Mini.json").unlink(), ["no split"]),
    "a split that is none": ("coop", write("coop/split_zhou_Mini.json", "[]"), ["no list `test`"]),
    "another split": (
        "coop",
        edit_card("coop", source={"sha256": "0" * 64}),
        ["not the published"],
    ),
    "a row of two": ("coop", edit_split(lambda s: s["test"][3].pop()), ["test[3]", "a path"]),
    "a path that leaves": (
        "coop",
        edit_split(lambda s: s["test"][3].__setitem__(0, "../../etc/passwd")),
        ["test[3]", "inside the root"],
    ),
    "an image twice": (
        "coop",
        edit_split(lambda s: s["test"].append(s["test"][0])),
        ["test[20]", "listed twice"],
    ),
    "a label too high": (
        "coop",
        lambda f: (
            (f / "names.txt").write_text("# a list\na\nb\nc\nd\n"),
            edit_card("coop", classes="names.txt")(f),
        ),
        ["test[16]", "[0, 3]", "got 4"],
    ),
    "one image too few": (
        "coop",
        edit_split(lambda s: s["test"].pop()),
        ["has 19 test images", "expects 20"],
    ),
    "a class folder too many": (
        "folder",
        lambda f: (
            (f / "extra" / "cat").mkdir(parents=True),
            [(f / "extra" / name).mkdir() for name in NAMES],
            edit_card("folder", root="extra", classes={n: n for n in NAMES})(f),
        ),
        ["differ in cat"],
    ),
    "a wrong number of classes": (
        "folder",
        edit_card("folder", expected={"classes": 6, "images": 20}),
        ["has 5 classes", "expects 6"],
    ),
    "no table": ("table", edit_card("table", source={"file": "no.csv"}), ["no.csv", "no such"]),
    "no such column": ("table", edit_card("table", source={"label": "y"}), ["cannot be read", "y"]),
    "an unknown class": (
        "table",
        edit_card("table", classes={"a": "bird", "b": "fruit"}),
        ["row 4", "'flower'"],
    ),
    "no webdataset": ("webdataset", edit_card("webdataset", source={"split": "no"}), ["nshards"]),
    "shards that are no number": (
        "webdataset",
        write("wds/test/nshards.txt", "x"),
        ["must contain"],
    ),
    "a shard too few": ("webdataset", write("wds/test/nshards.txt", "3"), ["2.tar", "no shard"]),
    "a shard that is no tar": ("webdataset", write("wds/test/0.tar", "x" * 600), ["complete tar"]),
    "a sample without label": (
        "webdataset",
        lambda f: (
            retar(("a.jpg", b"x"))(f),
            edit_card("webdataset", expected={"classes": 5, "images": 11})(f),
        ),
        ["1 of 11", "1 no label", "0.tar/a.jpg"],
    ),
    "a label that is no number": (
        "webdataset",
        lambda f: (
            retar(("a.jpg", b"x"), ("a.cls", b"dog"))(f),
            edit_card("webdataset", expected={"classes": 5, "images": 11})(f),
        ),
        ["1 of 11", "1 label is not a number", "0.tar/a.jpg"],
    ),
    "no dataset of torchvision's": (
        "torchvision",
        edit_card("torchvision", source={"dataset": "FGVCAircarft"}),
        ["FGVCAircarft", "Did you mean `FGVCAircraft`?"],
    ),
    "what torchvision refuses": (
        "torchvision",
        edit_card("torchvision", source={"dataset": "DTD", "options": {"split": "test"}}),
        ["torchvision's DTD failed: Dataset not found"],
    ),
}


@pytest.mark.parametrize("why", BAD)
def test_what_is_wrong_is_one_clear_line(cards, tmp_path, why):
    kind, spoil, says = BAD[why]
    spoil(tmp_path)
    with pytest.raises(DatasetError) as error:
        scan(load_card(str(cards[kind])), tmp_path / "cache", 0)
    text = str(error.value)
    assert text.startswith(f"dataset `{kind}`: ") and "\n" not in text
    assert [part for part in says if part not in text] == [], text
