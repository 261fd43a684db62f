"""Every bad input: one line that says what, where and what to do; exit code 2; nothing half-made.

The command line runs in this process, so that hundreds of cases take seconds; test_cli.py runs it
as a real one. What is bad in bulk (images, captions) is set aside instead, and the run goes on.
"""

import compileall
import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from sharing import free_port, same_rows, unsealed
from warm import OURS

from flows.cli import main as cli
from flows.reindex import xmore_reindex
from xmore.files.paths import PROJECT_ROOT
from xmore.memory.snapshot import PAIRS, open_snapshot, resolve_current
from xmore.results.runs import all_runs, load_run
from xmore.store import artifacts as store
from xmore.store.artifacts import read_rows

DELETE = object()


class Case:
    """A folder to spoil, and the command line over it."""

    def __init__(self, world, folder: Path) -> None:
        self.world, self.folder, self.results = world, folder, folder / "results"
        self.config = folder / "run.yaml"
        self.write()

    def write(self, **changes) -> None:
        """The config, with some keys changed; `roles__coarse` is a key inside a section."""
        data = self.world.config(self.results).model_dump(mode="json", exclude_none=True)
        for key, value in changes.items():
            *sections, last = key.split("__")
            where = data
            for section in sections:
                where = where[section]
            if value is DELETE:
                del where[last]
            else:
                where[last] = value
        self.config.write_text(yaml.safe_dump(data))

    def card(self, file: str = "card", classes: dict | None = None) -> Path:
        """A card over `<folder>/images`."""
        path = self.folder / f"{file}.yaml"
        data = {"name": "card", "root": "images"}
        path.write_text(yaml.safe_dump(data | ({"classes": classes} if classes else {})))
        self.write(datasets=[str(path)])
        return path

    def images(self, *classes: str, count: int = 3) -> Path:
        root = self.folder / "images"
        sources = sorted((self.world.root / "queries").rglob("*.jpg"))
        for number, name in enumerate(classes):
            (root / name).mkdir(parents=True)
            for i in range(count):
                source = sources[(number * count + i) % len(sources)]
                shutil.copy(source, root / name / f"{i:02d}.jpg")
        return root

    def memory(self) -> Path:
        """A copy of the tiny world's memory; returns its snapshot's folder."""
        copy = shutil.copytree(self.world.root / "memory", self.folder / "memory")
        self.write(memory=str(copy))
        return copy / "snapshots" / resolve_current(copy)

    def rewrite_manifest(self, snapshot: Path, **facts) -> None:
        """Make sizes and hashes in the manifest true again, so that a deeper check has to see."""
        manifest = json.loads((snapshot / "manifest.json").read_text()) | facts
        # As in an older snapshot: captions are read from the metadata.
        manifest["files"] = [file for file in manifest["files"] if file["file"] != PAIRS]
        (snapshot / PAIRS).unlink(missing_ok=True)
        for file in manifest["files"]:
            data = (snapshot / file["file"]).read_bytes()
            file |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (snapshot / "manifest.json").write_text(json.dumps(unsealed(manifest)))

    def made(self) -> list[str]:
        """Runs and artifacts that are there, whole or not."""
        paths = [*self.results.glob("runs/*"), *self.results.glob("store/*/*/*")]
        return [str(path.relative_to(self.results)) for path in paths]


@pytest.fixture
def case(world, tmp_path) -> Case:
    return Case(world, tmp_path)


def refused(answer: tuple[int, str, str], *says: str) -> None:
    code, out, error = answer
    assert code == 2, out + error
    assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
    assert [part for part in says if part not in error] == [], error


ALONE = {"memory": None, "roles": {"inference": ["lite0"]}}  # a config without a memory

CONFIGS = {
    "a missing key": (
        {"memory": DELETE},
        ["`memory` is missing: add it", "remove `roles.coarse` and `roles.fine`"],
    ),
    "a missing key of a section": (
        {"roles__fine": DELETE},
        ["`roles.fine` is missing: add it", "remove `memory` and `roles.coarse`"],
    ),
    "a memory without its models": (
        {"roles": {"inference": ["lite0"]}},
        ["`roles.coarse` and `roles.fine` are missing: add them", "remove `memory`"],
    ),
    "retrieval without a memory": (
        ALONE | {"retrieval": {"captions": [4]}},
        ["`retrieval` does nothing without a memory: remove it, or add `memory`, `roles.coarse`"],
    ),
    "leaks without a memory": (
        ALONE | {"retrieval": {}, "leaks": {"exclude": True}},
        ["`leaks` does nothing without a memory"],
    ),
    "methods that need a memory, without one": (
        ALONE | {"retrieval": {}, "methods": ["clip", "xmore", "tip-x"]},
        ["`xmore`, `tip-x` cannot run without a memory. Set `memory`", "need none: clip, calip"],
    ),
    "a misspelt key": ({"retreival": {}}, ["retreival", "Did you mean `retrieval`?"]),
    "a misspelt key of a section": (
        {"retrieval__candidate": 3},
        ["retrieval.candidate", "Did you mean `candidates`?"],
    ),
    "a wrong type": ({"seeds": "three"}, ["`seeds`", "'three'"]),
    "K below M": ({"retrieval__captions": [25]}, ["[1, 24]", "got 25"]),
    "no candidates to re-rank": ({"retrieval__rerank": 0}, ["`retrieval.rerank`", "0"]),
    "M below 1": ({"retrieval__captions": [0]}, ["[1, 24]", "got 0"]),
    "K below 1": ({"retrieval__candidates": 0}, ["retrieval.candidates", "0"]),
    "a negative seed": ({"seeds": [-1]}, ["`seeds`", "-1"]),
    "an unknown method": (
        {"methods": ["xmorse"]},
        ["Did you mean `xmore`? Known: clip, "],
    ),
    "a method's file that is not there": (
        {"methods": ["clip", "nowhere.py"]},
        ["nowhere.py: No such file", "`methods` names it"],
    ),
    "betas that nobody published": (
        {"methods": ["clip", "calip-oracle"]},
        ["`calip-oracle`", "not for `", "use `calip`"],
    ),
    "a single view": ({"options": {"views": {"count": 1}}}, ["options.views.count", "2"]),
    "no image with views": ({"options": {"views": {"limit": 0}}}, ["options.views.limit", "got 0"]),
    "an option of no method": (
        {"options": {"clip": {}}},
        ["unknown key `options.clip`", "`calip`"],
    ),
    "an unknown adjustment": (
        {"adjustments": ["max"]},
        ["Did you mean `minmax`? Known: "],
    ),
    "an unknown model": ({"roles__fine": "lite9"}, ["no model `lite9`. Did you mean `lite"]),
    "an unknown architecture": ({"roles__fine": "RN51/openai"}, ["RN51`. Did you mean `RN50`?"]),
    "an unknown pretrained tag": (
        {"roles__fine": "RN50/opnai"},
        ["Did you mean `openai`?"],
    ),
    "a model folder that is not there": (
        {"models__lite0__folder": "/nowhere"},
        ["lite0", "/nowhere"],
    ),
    "an unknown dataset": (
        {"datasets": ["stmps"]},
        ["Did you mean `stamps`? Available: "],
    ),
    "no dataset": ({"datasets": []}, ["`datasets`"]),
    "a dataset twice": ({"datasets": ["stamps", "stamps"]}, ["`datasets`", "twice"]),
    "a prompt without {}": ({"prompt": "a photo"}, ["`prompt`", "{}"]),
    "a name that is a path": ({"name": "../x"}, ["`name`", "../x"]),
    "a threshold of 0": ({"leaks": {"threshold": 0}}, ["`leaks.threshold`", "greater than 0"]),
    "a threshold above 1": ({"leaks": {"threshold": 95}}, ["`leaks.threshold`", "95"]),
    "class names that no card has": ({"class_names": "mine"}, ["no class names `mine`", "none"]),
    "a dataset that is not here": (
        {"datasets": ["flowers102"], "data_root": "/nowhere"},
        ["`flowers102`", "/nowhere/oxford_flowers", "xmore datasets get"],
    ),
    "prompts that are not here": ({"prompts": "/nowhere.txt"}, ["/nowhere.txt", "`prompts`"]),
    "an empty list of prompt sets": ({"prompt_sets": []}, ["`prompt_sets`", "at least 1"]),
    "a prompt set without a name": (
        {"prompt_sets": [{"template": "a {}."}]},
        ["`prompt_sets.0.name` is missing"],
    ),
    "a prompt set's name that is a text": (
        {"prompt_sets": [{"name": "the card's"}]},
        ["`prompt_sets.0.name`", "the card's"],
    ),
    "a prompt set of an unknown kind": (
        {"prompt_sets": [{"name": "a", "json": "x"}]},
        ["unknown key `prompt_sets.0.json`", "Known keys: name, template, file"],
    ),
    "a prompt set twice": (
        {"prompt_sets": [{"name": "a"}, {"name": "a", "template": "a {}."}]},
        ["`prompt_sets`", "twice"],
    ),
    "a prompt set of a template and a file": (
        {"prompt_sets": [{"name": "a", "template": "a {}.", "file": "x.txt"}]},
        ["prompt set `a`", "either `template` or `file`"],
    ),
    "a template of a set without {}": (
        {"prompt_sets": [{"name": "a", "template": ""}]},
        ["prompt set `a`", "{}"],
    ),
    "a set's file that is not here": (
        {"prompt_sets": [{"name": "a"}, {"name": "b", "file": "/nowhere.json"}]},
        ["/nowhere.json", "`prompts`"],
    ),
    "prompts and prompt sets": (
        {"prompts": "x.txt", "prompt_sets": [{"name": "a"}]},
        ["either `prompts` or `prompt_sets`"],
    ),
    "neighbour texts that are not here": (
        {"methods": ["coder"], "options": {"coder": {"texts": "/nowhere.jsonl"}}},
        ["/nowhere.jsonl", "`options.coder.texts`"],
    ),
    "a dataset without neighbour texts": (
        {"methods": ["coder-rerank"]},
        ["no neighbour texts for `tiny`", "xmore texts tiny --out FILE"],
    ),
}


@pytest.mark.parametrize("why", CONFIGS)
def test_config(case, xmore, why):
    changes, says = CONFIGS[why]
    case.write(**changes)
    refused(xmore("benchmark", case.config), *says)
    assert not case.made()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [x", "line 1"),
        ("a:\n\tb: 1", "line 2"),
        ("just words", "keys and values"),
        ("", "keys and values"),
        ("x: !!python/object/apply:os.system ['touch owned']", "not valid YAML"),
    ],
)
def test_yaml_syntax(case, xmore, text, says, monkeypatch):
    monkeypatch.chdir(case.folder)
    case.config.write_text(text)
    refused(xmore("benchmark", case.config), "run.yaml", says)
    refused(xmore("reindex", case.config), "run.yaml", says)
    assert not (case.folder / "owned").exists()


def test_a_config_that_is_not_there_or_a_folder(case, xmore):
    refused(xmore("benchmark", case.folder / "nowhere.yaml"), "nowhere.yaml", "No such file")
    refused(xmore("reindex", case.folder), str(case.folder), "directory")


def test_a_yaml_of_another_kind(case, xmore):
    memory = case.folder / "memory.yaml"
    memory.write_text("memory: m\nsources: [{tars: {folder: i}}]\nmodel: {folder: f}\n")
    refused(xmore("benchmark", memory), "memory's config", "xmore reindex")
    refused(xmore("reindex", case.config), "benchmark's config", "xmore benchmark")
    refused(xmore("benchmark", case.card()), "dataset's card", "`datasets`")
    refused(xmore("benchmark"), "name a config", "--resume")


SWEEPS = {
    "an unknown key in it": ({"vray": {}}, ["unknown key `vray`", "`vary`"]),
    "no question": ({"table": DELETE}, ["`table` is missing"]),
    "an unknown key to change": ({"vary": {"retrieval.fin": ["direct"]}}, ["retrieval.fin"]),
    "a value that may not be": ({"vary": {"retrieval.captions": [[99]]}}, ["[1, 24]", "got 99"]),
    "values that are no list": ({"vary": {"seeds": 3}}, ["vary.seeds", "list"]),
    "no values": ({"vary": {"seeds": []}}, ["vary.seeds", "at least 1"]),
    "no number": ({"vary": {"leaks.threshold": [".nan", "nan"]}}, ["leaks.threshold"]),
    "a base that is not there": ({"base": "nowhere.yaml"}, ["nowhere.yaml", "cannot be read"]),
}


def test_a_sweep_over_what_a_run_without_a_memory_has_not(case, xmore):
    case.write(**ALONE, retrieval={}, methods=["clip"])
    over = {"retrieval.candidates": [16, 128]}
    refused(xmore("sweep", _sweep(case, vary=over)), "`retrieval` does nothing without a memory")
    assert not case.made()


def _sweep(case: Case, **changes) -> Path:
    data = {"name": "s", "base": "run.yaml", "vary": {}, "table": "from leaderboard"} | changes
    path = case.folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not DELETE}))
    return path


@pytest.mark.parametrize("why", SWEEPS)
def test_sweep(case, xmore, why):
    changes, says = SWEEPS[why]
    refused(xmore("sweep", _sweep(case, **changes)), *says)
    assert not case.made()


def test_a_sweep_is_not_a_benchmark_and_its_question_may_be_wrong(case, xmore):
    refused(xmore("benchmark", _sweep(case)), "sweep's config", "xmore sweep")
    for wrong, says in (("from nowhere", "nowhere"), ("select nothing from costs", '"nothing"')):
        refused(xmore("sweep", _sweep(case, table=wrong)), "`table`", says)
    refused(xmore("sweep", _sweep(case, table="")), "`table` is empty")
    assert not case.made()


def test_datasets_and_comparisons(case, xmore, done):
    refused(xmore("datasets", "show", "flowrs"), "no card", "flowers102")
    refused(xmore("datasets", "check", "dtd", "--root", case.folder / "no"), "no folder", "/no")
    refused(xmore("datasets", "check", "dtd", "--root", case.folder), "no split", "split_zhou")
    results = ("--results", done.config.results)
    refused(xmore("compare", done.name, *results), "another run", "--to paper")
    refused(xmore("compare", done.name, "nope", *results), "no run `nope`")
    refused(xmore("compare", done.name, "--to", "paper", *results), "nothing of it", "paper_name")


def test_two_datasets_of_one_name(case, xmore):
    case.images("a", "b")
    cards = [case.card("one"), case.card("two")]
    case.write(datasets=[str(card) for card in cards])
    refused(xmore("benchmark", case.config), "two cards have one name")


def _empty_class(case: Case) -> None:
    (case.images("a", "b") / "c").mkdir()


def _leaving(case: Case) -> None:
    case.images("a", "b")
    case.card(classes={"../images/a": "one", "b": "two"})


def _linked_out(case: Case) -> None:
    root = case.images("a", "b")
    (root / "c").symlink_to(case.world.root / "queries" / "bird")


def _differing(case: Case) -> None:
    case.images("a", "b")
    case.card(classes={"a": "one", "c": "two"})


def _one_name(case: Case) -> None:
    case.images("a", "b")
    case.card(classes={"a": "same", "b": "same"})


CARDS = {
    "no folder": (lambda case: None, ["no folder", "images"]),
    "no images": (lambda case: (case.folder / "images" / "a").mkdir(parents=True), ["images"]),
    "a class without images": (_empty_class, ["no images in", "/c"]),
    "two classes of one name": (_one_name, ["two classes", "'same'"]),
    "one class only": (lambda case: case.images("a"), ["at least two classes"]),
    "a class list that differs from the folders": (_differing, ["differ in", "b, c"]),
    "a path that leaves the root": (_leaving, ["../images/a"]),
    "a link that leaves the root": (_linked_out, ["leads out of the root"]),
}


@pytest.mark.parametrize("why", CARDS)
def test_card(case, xmore, why):
    case.card()
    spoil, says = CARDS[why]
    spoil(case)
    refused(xmore("benchmark", case.config), *says)
    assert not list(case.results.glob("store/*/*/*"))


def _specials(root: Path) -> tuple[dict[str, str], list[str]]:
    """Odd images in class a: those that are set aside, with their cause, and those that work."""
    photo = Image.open(min(root.rglob("*.jpg"))).convert("RGB")
    folder = root / "a"
    frames = [Image.new("P", (20, 20), i) for i in range(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    deep = np.linspace(0, 65535, 900).reshape(30, 30).astype(np.uint16)
    Image.fromarray(deep).save(folder / "sixteen.png")
    palette = photo.quantize(16)
    palette.info["transparency"] = 0
    palette.save(folder / "palette.png", transparency=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "rotated.jpg", exif=exif)
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    (folder / "words.jpg").write_text("no image")
    whole = (root / "a" / "00.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "zero.jpg").touch()
    Image.new("1", (30_000, 30_000)).save(folder / "huge.png")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "around").symlink_to(root)
    bad = {
        "a/words.jpg": "not an image",
        "a/half.jpg": "truncated or damaged",
        "a/zero.jpg": "empty file",
        "a/huge.png": "too many pixels",
        "a/loop.jpg": "unreadable file",
    }
    if os.geteuid() != 0:  # root may read anything
        (folder / "locked.jpg").write_bytes(whole)
        (folder / "locked.jpg").chmod(0)
        bad["a/locked.jpg"] = "unreadable file"
    good = ["animated.gif", "cmyk.jpg", "sixteen.png", "palette.png", "rotated.jpg", "one.png"]
    return bad, [f"a/{name}" for name in good]


def test_images_are_counted_by_cause_and_the_run_goes_on(case, xmore):
    bad, good = _specials(case.images("a", "b", count=5))
    case.card()
    data = yaml.safe_load(case.config.read_text()) | {"max_rejected": 0.5}
    case.config.write_text(yaml.safe_dump(data))
    code, out, error = xmore("benchmark", case.config)
    assert code == 0, error
    run = load_run(case.results, "latest")
    rows = {ref.stage: read_rows(ref).to_pylist() for ref in run.artifacts}
    assert {row["uri"]: row["cause"] for row in rows["rejected"]} == bad
    assert "card: 1 test image rejected: too many pixels (a/huge.png)" in out
    assert set(good) <= {row["uri"] for row in rows["queries"]}
    assert len(rows["queries"]) == 10 + len(good)


def test_too_many_bad_images_stop_it(case, xmore):
    root = case.images("a", "b", count=5)
    (root / "a" / "words.jpg").write_text("no image")
    case.card()
    refused(xmore("benchmark", case.config), "1 of 11", "not an image", "words.jpg", "max_rejected")


def _change_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _rows(change):
    def spoil(case: Case, snapshot: Path) -> None:
        path = snapshot / "img_emb" / "img_emb_000001.npy"
        np.save(path, change(np.load(path)))
        case.rewrite_manifest(snapshot)

    return spoil


def _set_row(value: float):
    def change(rows: np.ndarray) -> np.ndarray:
        rows[7] = value
        return rows

    return _rows(change)


def _fewer_metadata(case: Case, snapshot: Path) -> None:
    path = snapshot / "metadata" / "metadata_000001.parquet"
    pq.write_table(pq.read_table(path)[:99], path)
    case.rewrite_manifest(snapshot)


def _no_caption_column(case: Case, snapshot: Path) -> None:
    for path in (snapshot / "metadata").iterdir():
        pq.write_table(pq.read_table(path).drop(["caption"]), path)
    case.rewrite_manifest(snapshot)


def _small_index(case: Case, snapshot: Path) -> None:
    import faiss

    index = faiss.IndexFlatIP(64)
    index.add(np.eye(5, 64, dtype=np.float32))
    faiss.write_index(index, str(snapshot / "image.index"))
    case.rewrite_manifest(snapshot)


def _halve(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _cut_index(case: Case, snapshot: Path) -> None:
    _halve(snapshot / "image.index")
    case.rewrite_manifest(snapshot)


MEMORIES = {
    "no CURRENT": (lambda c, s: (s.parents[1] / "CURRENT").unlink(), ["CURRENT", "xmore reindex"]),
    "CURRENT to nowhere": (
        lambda c, s: (s.parents[1] / "CURRENT").write_text("gone\n"),
        ["gone", "manifest.json"],
    ),
    "CURRENT out of the memory": (
        lambda c, s: (s.parents[1] / "CURRENT").write_text("../../x\n"),
        ["not a snapshot's name"],
    ),
    "a manifest that is none": (
        lambda c, s: (s / "manifest.json").write_text("[]"),
        ["not a snapshot's manifest"],
    ),
    "a shard missing": (
        lambda c, s: (s / "img_emb" / "img_emb_000002.npy").unlink(),
        ["img_emb_000002.npy", "absent"],
    ),
    "a shard cut short": (
        lambda c, s: (s / "img_emb" / "img_emb_000002.npy").write_bytes(b"x"),
        ["img_emb_000002.npy", "1 bytes"],
    ),
    "a byte changed": (
        lambda c, s: _change_byte(s / "img_emb" / "img_emb_000000.npy"),
        ["img_emb_000000.npy", "differ from those that were published"],
    ),
    "fewer metadata than embeddings": (_fewer_metadata, ["100 rows", "99"]),
    "embeddings of another dimension": (_rows(lambda r: r[:, :40]), ["40", "64 dimensions"]),
    "a row of NaN": (_set_row(np.nan), ["row 7", "not a unit vector", "img_emb_000001"]),
    "a row of zeros": (_set_row(0), ["row 7", "not a unit vector"]),
    "no caption column": (_no_caption_column, ["no column `caption`", "memory_key"]),
    "an index cut short": (_cut_index, ["image.index", "not a readable index"]),
    "an index of another size": (_small_index, ["image.index", "5 rows", "240"]),
}


@pytest.mark.parametrize("why", MEMORIES)
def test_memory(case, xmore, why):
    snapshot = case.memory()
    spoil, says = MEMORIES[why]
    spoil(case, snapshot)
    if "index" in why:
        memory = str(snapshot.parents[1])
        case.write(memory=memory, retrieval={"candidates": 24, "captions": [8], "search": "index"})
    refused(xmore("benchmark", case.config), *says)
    assert not [path for path in case.made() if path.startswith("store/predictions")]


def test_an_adopted_folders_index_cut_short(case, xmore):
    """No manifest knows its size; faiss would read on past the file's end."""
    import faiss

    snapshot = case.memory()
    rows = np.concatenate([np.load(p) for p in sorted((snapshot / "img_emb").iterdir())])
    index = faiss.index_factory(rows.shape[1], "IVF4,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(rows.astype(np.float32))
    index.add(rows.astype(np.float32))
    faiss.write_index(index, str(snapshot / "image.index"))
    _halve(snapshot / "image.index")
    (snapshot / "manifest.json").unlink()
    retrieval = {"candidates": 24, "captions": [8], "search": "index"}
    case.write(memory=str(snapshot), retrieval=retrieval)
    refused(xmore("benchmark", case.config), "image.index", "not a readable index, it is cut short")


def test_a_damaged_memory_is_named_and_ends_with_1(case, xmore):
    snapshot = case.memory()
    assert xmore("memory", "verify", case.folder / "memory")[0] == 0
    path = min((snapshot / "metadata").iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # a hard link
    path.write_bytes(data)
    code, out, _ = xmore("memory", "verify", case.folder / "memory")
    assert code == 1 and str(path) in out


def test_verify_names_an_index_cut_short(case, xmore, done):
    snapshot = case.memory()
    _halve(snapshot / "image.index")
    shutil.copytree(done.config.results, case.results)
    record = case.results / "runs" / done.name / "run.json"
    of_old, of_copy = case.world.root / "memory", case.folder / "memory"
    text = json.dumps(unsealed(json.loads(record.read_text())))
    record.write_text(text.replace(f'"{of_old}"', f'"{of_copy}"'))
    code, out, _ = xmore("verify", done.name, "--results", case.results)
    line = next(line for line in out.splitlines() if line.startswith("damaged: "))
    assert code == 1 and "image.index: has" in line and "Build the memory again" in line


INDEXES = {
    "the key of old": ({"index_key": "Flat"}, ["unknown key `index_key`", "`index`"]),
    "a key that is none": ({"index": {"key": "Flatt"}}, ["Flatt", "`index.key`", "command again"]),
    "more clusters than rows": ({"index": {"key": "IVF300,Flat"}}, ["(240)", "(300)"]),
    "too little memory": ({"index": {"memory_gb": 1e-6}}, ["gives up", "`index.memory_gb`"]),
    "no memory": ({"index": {"memory_gb": 0}}, ["`index.memory_gb`", "greater than 0"]),
    "a recall above 1": ({"index": {"target_recall": 95}}, ["`index.target_recall`", "95"]),
    "no candidates": ({"index": {"rerank": 0}}, ["`index.rerank`", "got 0"]),
    "a recall out of reach": (
        {"index": {"key": "IVF4,PQ4x4", "target_recall": 1}},
        ["recall@128", "nprobe 4, the largest", "or lower the target"],
    ),
}


@pytest.mark.parametrize("why", INDEXES)
def test_index(case, xmore, why, spare_memory):
    """The embeddings are made once: each refusal leaves them for the next run."""
    changes, says = INDEXES[why]
    data = spare_memory.model_dump(mode="json", exclude_none=True) | changes
    path = case.folder / "memory.yaml"
    path.write_text(yaml.safe_dump(data))
    refused(xmore("reindex", path), *says)
    assert not (spare_memory.memory / "CURRENT").exists()


@pytest.fixture(scope="module")
def spare_memory(world, tmp_path_factory):
    """The config of a memory that is embedded and has no index yet."""
    return world.memory_config(memory=tmp_path_factory.mktemp("spare") / "memory")


def test_a_memory_of_another_model(case, xmore):
    case.write(roles__coarse="lite0")
    refused(xmore("benchmark", case.config), "lite0-pooled", "roles.coarse")


ODD = {
    "a hundred kilobytes": "word " * 20_000,
    "control characters": "a\x00b\x1b[31mc\x07\r\n\td",
    "right-to-left marks": "\u202ebackwards\u202c \u2067x\u2069",
    "HTML": "<script>alert(1)</script>",
    "SQL": "'; drop view queries; --",
    "emoji and joiners": "\U0001f469\u200d\U0001f52c \U0001f1e9\U0001f1ea",
    "a lone surrogate's bytes": b"\xed\xa0\x80 and \xff\xfe",
    "an invalid byte": b"caf\xe9",
}


def test_odd_captions_are_only_text(case, xmore):
    """They are retrieved, scored, shown and asked for; none is run, and none stops the run."""
    snapshot = case.memory()
    for path in sorted((snapshot / "metadata").iterdir()):
        table = pq.read_table(path)
        values = [*ODD.values()] * (len(table) // len(ODD) + 1)
        raw = [v if isinstance(v, bytes) else v.encode() for v in values[: len(table)]]
        # Arrow does not look at the bytes of strings that are made from buffers.
        captions = pa.array(raw, pa.binary()).view(pa.string())
        index = table.column_names.index("caption")
        pq.write_table(table.set_column(index, "caption", captions), path)
    case.rewrite_manifest(snapshot)
    code, _, error = xmore("benchmark", case.config)
    assert code == 0, error
    query = "select distinct caption from captions_long"
    code, out, _ = xmore("sql", "latest", query, "--format", "json", "--results", case.results)
    shown = {row["caption"] for row in json.loads(out)}
    expected = {v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in ODD.values()}
    assert code == 0 and shown == expected
    code, out, error = xmore("explain", "latest", "3", "--results", case.results)
    assert code == 0 and "\x1b" not in out and "\u202e" not in out, error


LEAKS = {
    "a threshold of 0": (["--threshold", "0"], ["--threshold", "above 0", "got 0.0"]),
    "a threshold above 1": (["--threshold", "1.5"], ["at most 1", "got 1.5"]),
    "a threshold that is no number": (["--threshold", "nan"], ["--threshold", "got nan"]),
    "a page in a folder that is not there": (["--html", "/proc/x/y.html"], ["/proc/x"]),
}


@pytest.mark.parametrize("why", LEAKS)
def test_leaks(done, xmore, why):
    arguments, says = LEAKS[why]
    before = sorted(done.config.results.rglob("*"))
    refused(xmore("leaks", done.name, *arguments, "--results", done.config.results), *says)
    assert sorted(done.config.results.rglob("*")) == before


def test_leaks_of_a_run_that_is_not_there_or_not_whole(case, xmore, monkeypatch):
    refused(xmore("leaks", "latest", "--results", case.results), "no runs", "xmore benchmark")
    monkeypatch.setattr("flows.benchmark.run_dataset", lambda *_: 1 / 0)
    refused(xmore("benchmark", case.config), "ZeroDivisionError", "--debug")
    refused(xmore("leaks", "none", "--results", case.results), "no run `none`", "xmore runs")
    refused(xmore("leaks", "latest", "--results", case.results), "is failed", "completed")


def test_leaks_of_a_memory_that_is_gone(case, done, xmore):
    shutil.copytree(done.config.results, case.results)
    file = case.results / "runs" / done.name / "run.json"
    data = json.loads(file.read_text())
    data["snapshot"]["memory"] = str(case.folder / "gone")
    file.write_text(json.dumps(unsealed(data)))
    refused(xmore("leaks", done.name, "--results", case.results), "gone", "no memory")


def test_every_test_image_leaked(case, done, xmore):
    shutil.copytree(done.config.results, case.results)
    before = sorted(case.results.glob("store/predictions/*/*"))
    case.write(leaks={"threshold": 0.01, "exclude": True})
    refused(xmore("benchmark", case.config), "tiny", "every test image", "leaks.threshold")
    assert sorted(case.results.glob("store/predictions/*/*")) == before


# ----- the environment


@pytest.mark.parametrize(
    "stage",
    [
        "queries", "caption_embeddings", "predictions",
        *(pytest.param(stage, marks=pytest.mark.slow) for stage in (
            "query_embeddings", "candidates", "captions", "leaks", "scores", "metrics",
        )),
    ],
)  # fmt: skip
def test_a_full_disk_at_each_stage_loses_nothing(case, done, xmore, monkeypatch, stage):
    fsync = store.fsync_file

    def full(path: Path) -> None:
        if f"/{stage}/" in str(path) or f"/{stage}" in str(path.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        fsync(path)

    for module in ("xmore.store.artifacts", "xmore.store.texts"):
        if hasattr(sys.modules[module], "fsync_file"):
            monkeypatch.setattr(f"{module}.fsync_file", full)
    refused(xmore("benchmark", case.config), "No space left on device", "same command again")
    assert load_run(case.results, "latest").status == "failed"
    monkeypatch.undo()
    code, _, error = xmore("benchmark", case.config)
    assert code == 0, error
    _same_as(case, done)


def _same_as(case: Case, done) -> None:
    mine, theirs = load_run(case.results, "latest"), load_run(done.config.results, done.name)
    assert mine.status == "completed"
    for one, other in zip(mine.artifacts, theirs.artifacts, strict=True):
        assert (one.stage, one.digest) == (other.stage, other.digest)
        assert same_rows(read_rows(one), read_rows(other)), one.stage
    assert not list(case.results.rglob("*.partial")) and not list(case.results.rglob("*.tmp"))


XMORE = str(Path(sys.executable).parent / "xmore")


def test_a_file_size_limit_is_one_line(case, done, warm):
    """The system's own limit, in a process of its own."""
    for package in OURS:  # or the limit would cut bytecode, which Python does not notice
        compileall.compile_dir(PROJECT_ROOT / package, quiet=2)
    process = warm.xmore("benchmark", case.config)
    resource.prlimit(process.child.pid, resource.RLIMIT_FSIZE, (20000, 20000))
    code, _, error = process.end()
    assert code == 2 and "File too large" in error, error
    assert "Traceback" not in error and error.count("\n") == 1
    code, _, error = warm.xmore("benchmark", case.config).end()
    assert code == 0, error
    _same_as(case, done)


def test_results_that_cannot_be_written(case, xmore):
    (case.folder / "file").touch()
    case.write(results=str(case.folder / "file" / "results"))
    refused(xmore("benchmark", case.config), "file")
    if os.geteuid() != 0:
        (case.folder / "locked").mkdir(mode=0o500)
        case.write(results=str(case.folder / "locked" / "results"))
        refused(xmore("benchmark", case.config), "locked", "Permission denied")


def test_two_runs_at_the_same_time_share_what_they_make(case, done, warm):
    both = [warm.xmore("benchmark", case.config) for _ in "12"]
    for process in both:
        code, _, error = process.end()
        assert code == 0, error
    runs = all_runs(case.results)
    assert len(runs) == 2
    made = [sum(not ref.skipped for ref in run.artifacts) for run in runs]
    assert sum(made) >= len(runs[0].artifacts)
    _same_as(case, done)


@pytest.mark.parametrize(
    ("sign", "code", "says"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_a_signal_stops_it_and_says_how_to_go_on(case, done, warm, sign, code, says):
    process = warm.xmore("benchmark", case.config)
    _until(lambda: list(case.results.glob("store/query_embeddings/*/*")))  # in the middle
    process.child.send_signal(getattr(signal, sign))
    returned, _, error = process.end(30)  # stops in seconds; this only ends a hang
    assert returned == code, error
    assert f"{says}: complete parts are kept. Run the same command again to resume." in error
    assert "Traceback" not in error
    returned, _, error = warm.xmore("benchmark", case.config).end()
    assert returned == 0, error
    _same_as(case, done)


def test_a_clock_set_back(case, xmore, monkeypatch):
    from datetime import datetime

    from xmore.results import runs

    class Back(datetime):
        days = 5

        @classmethod
        def now(cls, tz=None):
            cls.days -= 1
            return datetime(2020, 1, max(1, cls.days), tzinfo=tz)

    monkeypatch.setattr(runs, "datetime", Back)
    for _ in range(2):
        code, _, error = xmore("benchmark", case.config, "--again")
        assert code == 0, error
    assert [run.status for run in all_runs(case.results)] == ["completed"] * 2
    assert all(run.seconds >= 0 for run in all_runs(case.results))


@pytest.mark.parametrize("home", [None, pytest.param("/proc", marks=pytest.mark.slow)])
def test_no_home_and_no_network(case, done, warm, home):
    dead = "http://127.0.0.1:1"
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "HF_HUB_OFFLINE")}
    environment |= {"http_proxy": dead, "https_proxy": dead}
    if home:
        environment["HOME"] = home
        answer = subprocess.run(
            [XMORE, "benchmark", str(case.config)], capture_output=True, text=True, env=environment
        )
        code, error = answer.returncode, answer.stderr
    else:
        code, _, error = warm.xmore("benchmark", case.config, environment=environment).end()
    assert code == 0, error
    _same_as(case, done)


def test_prefects_server_gone(case):
    environment = os.environ | {
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
        "PREFECT_CLIENT_MAX_RETRIES": "0",
        "PREFECT_HOME": str(case.folder / "home"),
    }
    answer = subprocess.run(
        [XMORE, "benchmark", str(case.config)], capture_output=True, text=True, env=environment
    )
    assert answer.returncode == 2, answer.stderr
    assert "http://127.0.0.1:1/api" in answer.stderr and "PREFECT_API_URL" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_reindex_of_a_bad_list_leaves_nothing(case, xmore, web):
    urls = case.folder / "urls.csv"
    urls.write_text("url,caption\nnot a url,x\nhttp://127.0.0.1:1/x.jpg,y\n")
    source = {"urls": {"path": str(urls), "columns": {}}}
    config = case.world.url_config(urls, case.folder / "m", sources=[source])
    path = case.folder / "memory.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    refused(xmore("reindex", path), "2 of 2 rows failed", "not a usable URL", "max_rejected")
    assert not (case.folder / "m" / "CURRENT").exists()


CLUSTERS = {
    "dask is not installed": (
        {"execution": {"runner": "dask"}},
        ["`execution.runner: dask`", "pip install 'xmore[dask]'"],
    ),
    "ray elsewhere without a server": (
        {"execution": {"runner": "ray", "address": "ray://head:10001"}},
        ["ray://head:10001", "PREFECT_API_URL"],
    ),
    "pyspark is not installed": (
        {"download": {"distributor": "pyspark"}},
        ["`download.distributor: pyspark`", "pip install 'xmore[spark]'"],
    ),
    "no Java": ({"index": {"distributed": "pyspark"}}, ["needs Java 17", "apt-get install"]),
    "an address of nothing": ({"execution": {"address": "tcp://a:1"}}, ["needs `runner: dask`"]),
    "an index that Spark does not build": (
        {"index": {"distributed": "pyspark", "key": "IVF64,SQ8"}},
        ["IVF64,SQ8", "IVF...,Flat"],
    ),
}


@pytest.mark.parametrize("why", CLUSTERS)
def test_a_cluster_that_cannot_be_used(case, xmore, web, monkeypatch, why):
    changes, says = CLUSTERS[why]
    urls = web.url_list(case.folder / "urls.parquet", rows=2)
    config = case.world.url_config(urls, case.folder / "out").model_dump(mode="json")
    path = case.folder / "memory.yaml"
    merged = {key: config[key] | value for key, value in changes.items()}
    path.write_text(yaml.safe_dump(config | merged))
    there = {"ray": "prefect_ray", "no Java": "pyspark"}
    known = [name for start, name in there.items() if why.startswith(start)]
    for module in ("tasks.spread", "index_build.base.spark"):
        monkeypatch.setattr(f"{module}.find_spec", lambda name: name in known or None)
    monkeypatch.setattr("index_build.base.spark.shutil.which", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    refused(xmore("reindex", path), *says)
    assert not web.asked and not (case.folder / "out" / "batches").exists()


def test_debug_shows_the_traceback(case, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["xmore", "--debug", "benchmark", "nowhere.yaml"])
    with pytest.raises(Exception, match=r"nowhere\.yaml"):
        cli.app()


def test_a_fresh_snapshot_of_the_tiny_world_is_whole(world):
    """What the cases above spoil copies of."""
    memory = world.root / "memory"
    assert (
        open_snapshot(memory, resolve_current(memory)).rows == 240
    )  # of 240: five images are there twice
    assert xmore_reindex.fn(world.memory_config()).skipped


RELAY = """
import asyncio, sys
here, there = sys.argv[1:]

async def pump(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()

async def relay(reader, writer):
    beyond, to = await asyncio.open_connection("127.0.0.1", there)
    await asyncio.gather(pump(reader, to), pump(beyond, writer))

async def main():
    async with await asyncio.start_server(relay, "127.0.0.1", here) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def test_prefects_server_gone_in_the_middle(case, done, warm, prefect_server, tmp_path):
    """Others want the server: what goes is a relay to it."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_CLIENT_MAX_RETRIES": "1",  # minutes by default: a server may come back
    }
    relay = warm.code(RELAY, port, urlsplit(prefect_server).port)
    try:
        _until(lambda: _answers(f"{api}/health"))
        process = subprocess.Popen(
            [XMORE, "benchmark", str(case.config)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        _until(lambda: list(case.results.glob("store/query_embeddings/*/*")))
    finally:
        relay.child.send_signal(signal.SIGKILL)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2, error
    assert f"error: {api}: Prefect's server does not respond" in error
    assert "Traceback" not in error
    code, _, error = warm.xmore("benchmark", case.config).end()
    assert code == 0, error
    _same_as(case, done)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _until(condition) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


PAIRS_CARD = {"name": "pairs", "task": "retrieval", "root": "images"}


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (PAIRS_CARD, ["pairs.yaml", "`task: retrieval` and `captions` belong together"]),
        (PAIRS_CARD | {"captions": {"file": "no.csv"}}, ["no.csv: no such table", "`captions`"]),
        (
            PAIRS_CARD | {"captions": {"file": "c.csv", "image": "path"}},
            ["c.csv: no column `path`"],
        ),
        (PAIRS_CARD | {"captions": {"file": "k.json"}}, ["k.json: no split `test`; it has train"]),
        (
            PAIRS_CARD | {"captions": {"file": "c.csv"}, "prompt": "a {}"},
            ["no `prompt`; remove it"],
        ),
        (
            PAIRS_CARD | {"captions": {"file": "c.csv"}, "root": "nowhere"},
            ["no folder", "nowhere; correct `root`"],
        ),
    ],
)
def test_a_retrieval_card(card, says, case, xmore):
    (case.folder / "images").mkdir()
    (case.folder / "c.csv").write_text("image,caption\na.jpg,one\n")
    (case.folder / "k.json").write_text('{"images": [{"split": "train", "sentences": []}]}')
    (case.folder / "pairs.yaml").write_text(yaml.safe_dump(card))
    case.write(datasets=[str(case.folder / "pairs.yaml")])
    refused(xmore("benchmark", case.config), *says)
    assert case.made() == []
