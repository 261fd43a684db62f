"""What a folder of classes says about files and folders that may be meant otherwise."""

import os
import re

import pytest
from odd.images import put
from odd.pixels import JPEG, PNG

import tasks.queries
from tasks.stage import Workspace
from xmore.config.execution import ExecutionConfig
from xmore.datasets.card import load_card
from xmore.datasets.scan import scan, set_aside
from xmore.files.digests import FactCache
from xmore.files.errors import DatasetError

PETS = {"cat/a.jpg": JPEG, "dog/a.png": PNG}
ALSO = ["x.txt", "y.txt", "LICENSE", "z.001", "._a.jpg", ".DS_Store", "Thumbs.db"]
NOTES = {  # what lies there beside PETS, what is said
    "nothing": ({}, []),
    "other files": (
        {f"cat/{name}": b"x" for name in ALSO} | {"dog/.ipynb_checkpoints/a.jpg": JPEG},
        ["files passed over: 8 (hidden 4, .txt 2, .001 1, no suffix 1)."],
    ),
    "many suffixes": (
        {f"cat/x.{i}": b"x" for i in range(8)},
        ["files passed over: 8 (.{}, others 3)."],
    ),
    "an underscore": ({"_unknown_/a.jpg": JPEG}, ["_unknown_ is no class, as its name {}"]),
    "no classes": ({"__MACOSX/a.jpg": JPEG, ".cache/a.jpg": JPEG}, []),
    "splits": (
        {"train/a.jpg": JPEG[:-2] + b"\xff\xd9x", "Val/a.jpg": PNG + b"x"},
        ["the class folders Val, train look like splits. {}"],
    ),
    "one class like a split": ({"test/a.jpg": JPEG + b"x"}, []),
    "beside": (
        {"a.jpg": JPEG, "b.png": PNG, "c.txt": b"x"},
        ["images beside the class folders{}: 2."],
    ),
    "two classes": (
        {"dog/b.jpg": JPEG},
        ["images in two classes: 1, such as cat/a.jpg and dog/b.jpg."],
    ),
    "a link to a folder": (
        {"cat/more": lambda path: path.symlink_to("../dog")},
        ["files passed over: 1 (link to a folder 1)."],
    ),
}


@pytest.fixture
def scanned(tmp_path):
    def read(**card):
        keys = {"name": "pets", "root": "images"} | card
        lines = [f"{key}: {value}\n" for key, value in keys.items()]
        (tmp_path / "card.yaml").write_text("".join(lines))
        return scan(load_card(str(tmp_path / "card.yaml")), tmp_path / "cache", 1)

    put(tmp_path / "images", PETS)
    return read


@pytest.mark.parametrize("name", NOTES)
def test_notes(scanned, tmp_path, name):
    things, notes = NOTES[name]
    put(tmp_path / "images", things)
    found = scanned()
    assert len(found.notes) == len(notes)
    for note, wanted in zip(found.notes, notes, strict=True):
        assert re.fullmatch(re.escape(wanted).replace(r"\{\}", ".*"), note)
    assert found.rejected == []


def test_the_run_logs_the_notes(scanned, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(tasks.queries.log, "warning", lambda form, *of: lines.append(form % of))
    put(tmp_path / "images", {"_odd\n/a.jpg": JPEG})
    scanned()
    card = load_card(str(tmp_path / "card.yaml"))
    config = type(
        "Config",
        (),
        {"max_rejected": 0, "limit": None, "prompts_by_set": lambda _: {"": ("{}", None)}},
    )
    tasks.queries.queries.fn(Workspace(tmp_path / "results", ExecutionConfig()), card, config)
    assert [line.partition(",")[0] for line in lines] == ["dataset `pets`: _odd is no class"]


def test_links_are_followed_only_if_the_card_says_so(scanned, tmp_path):
    put(tmp_path / "elsewhere", {"b.jpg": JPEG + b"x", "more/c.jpg": JPEG + b"y"})
    link = tmp_path / "images" / "cat" / "b.jpg"
    link.symlink_to(tmp_path / "elsewhere" / "b.jpg")
    assert scanned().rejected == [("cat/b.jpg", "link out of the root")]
    assert len(scanned(follow_links="true").queries) == 3
    (tmp_path / "images" / "fox").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=r"fox leads out .*follow_links"):
        scanned()
    found = scanned(follow_links="true")
    assert [q.uri for q in found.queries if q.label == 2] == ["fox/b.jpg", "fox/more/c.jpg"]


def test_an_unreadable_folder_is_one_line(scanned, monkeypatch):
    def walk(place, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(place)))

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(DatasetError, match=r"cat: cannot be read .Permission denied"):
        scanned()


def test_what_a_later_stage_could_not_use_is_rejected_by_the_next_scan(scanned, tmp_path):
    assert len(scanned().queries) == 2
    card = load_card(str(tmp_path / "card.yaml"))
    set_aside(card, tmp_path / "cache", {"cat/a.jpg": "truncated or damaged"})
    found = scanned()
    assert [q.uri for q in found.queries] == ["dog/a.png"]
    assert found.rejected == [("cat/a.jpg", "truncated or damaged")]
    (tmp_path / "images" / "cat" / "a.jpg").write_bytes(JPEG + b"x")  # mended
    assert scanned().rejected == []


def test_verdicts_of_an_older_rule_are_not_used(scanned, tmp_path):
    facts = FactCache(tmp_path / "cache", tmp_path / "images", "images")
    for name in PETS:
        facts.put(name, {"cause": "not an image"})
    facts.save(list(PETS))
    assert scanned().rejected == []
