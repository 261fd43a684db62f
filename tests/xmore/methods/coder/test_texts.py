import json

import pytest

from xmore.datasets.card import load_card, named_classes
from xmore.datasets.sources import plain
from xmore.files.errors import ConfigError
from xmore.methods.base import MethodRequest
from xmore.methods.coder.texts import FOLDER, KINDS, MAX_CHARACTERS, Row, read_rows, read_texts
from xmore.methods.registry import METHODS

NAMES = ["ape", "bear", "cow"]
GOOD = {"class": "ape", "kind": "attribute", "text": "an ape, which has fur.", "made_by": "me"}
VERSUS = GOOD | {"kind": "versus", "other": "bear"}


def write(path, *rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines))
    return path


def test_reading(tmp_path):
    path = write(
        tmp_path / "t.jsonl",
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),  # a byte order mark, as Windows saves
        b"",
        GOOD | {"kind": "analogue", "text": "an ape, which looks like a monkey."},
        GOOD | {"kind": "synonym", "text": "gorille \u00e9norme"},
        VERSUS,
        VERSUS | {"class": "bear", "other": "ape"},
        GOOD | {"class": "cow"},
    )
    texts = read_texts(path, NAMES)
    assert texts.synonyms == [["gorille \u00e9norme"], [], []]
    assert [len(found) for found in texts.descriptions] == [2, 0, 1]
    assert sorted(texts.versus) == [(0, 1), (1, 0)]
    assert texts.undescribed == 1
    assert [number for number, _ in read_rows(path)] == [1, 3, 4, 5, 6, 7]


def test_a_row_is_written_as_it_is_read(tmp_path):
    for given in (VERSUS | {"text": "\u00e9"}, GOOD):
        line = Row.model_validate(given).line()
        assert line.endswith("\n") and json.loads(line) == given
        path = tmp_path / "t.jsonl"
        path.write_text(line, encoding="utf-8")
        assert [row.model_dump(exclude_none=True) for _, row in read_rows(path)] == [given]


BAD = {
    "a key twice": (
        json.dumps(GOOD).replace('"kind"', '"class": "cow", "kind"').encode(),
        "the key `class` is there twice",
    ),
    "an unknown class": (GOOD | {"class": "aple"}, "no class 'aple' in the dataset"),
    "an unknown other class": (VERSUS | {"other": "bare"}, "no class 'bare'"),
    "an unknown kind": (GOOD | {"kind": "name"}, "`kind`"),
    "an empty text": (GOOD | {"text": ""}, "`text`"),
    "a blank text": (GOOD | {"text": "  "}, "printable"),
    "a text of control characters": (GOOD | {"text": "\x1b[31mred"}, "printable"),
    "half a character": (GOOD | {"text": "\ud800"}, "unicode"),
    "a text of two lines": (GOOD | {"text": "a\nb"}, "printable"),
    "a text that is too long": (GOOD | {"text": "a" * (MAX_CHARACTERS + 1)}, "500"),
    "a text that is none": (GOOD | {"text": 3}, "`text`"),
    "versus without other": (GOOD | {"kind": "versus"}, "`other`"),
    "other without versus": (GOOD | {"other": "bear"}, "`other`"),
    "versus itself": (VERSUS | {"other": "ape"}, "another class than 'ape'"),
    "no author": ({k: v for k, v in GOOD.items() if k != "made_by"}, "`made_by` is missing"),
    "an unknown key": (GOOD | {"txt": "a"}, "unknown key `txt`"),
    "a list": ([GOOD], "dictionary"),
    "said twice": (GOOD | {"made_by": "you"}, "repeats line 1"),
    "not JSON": (b"{'class': 1}", "not valid JSON"),
    "nested without end": (b"[" * 5000, "not valid JSON"),
    "not UTF-8": (b'{"class": "\xff"}', "not UTF-8"),
    "a long line": (b" " * 9000, "longer than 8192 bytes"),
}


@pytest.mark.parametrize("why", BAD)
def test_bad_rows_are_one_line_with_file_and_number(tmp_path, why):
    row, says = BAD[why]
    path = write(tmp_path / "t.jsonl", GOOD, row)
    with pytest.raises(ConfigError) as refused:
        read_texts(path, NAMES)
    message = str(refused.value)
    assert message.startswith(f"{path}, line 2: ") and says in message
    assert len(message) < len(str(path)) + 250 and message.isprintable()


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.jsonl"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_texts(path, NAMES)


def test_a_class_may_have_no_text_at_all(tmp_path):
    texts = read_texts(write(tmp_path / "t.jsonl", GOOD), NAMES)
    assert texts.descriptions == [[GOOD["text"]], [], []] and texts.versus == {}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_shipped_texts_are_valid_for_their_card(path):
    card = load_card(path.stem)
    given = named_classes(card)
    folders = sorted(folder.name for folder in card.root.iterdir() if folder.is_dir())
    names = [name for _, name in given] if given else [plain(name) for name in folders]
    texts = read_texts(path, names)
    assert texts.undescribed == 0, "each class is described"
    assert {row.kind for _, row in read_rows(path)} == set(KINDS)
    one_way = [pair for pair in texts.versus if pair[::-1] not in texts.versus]
    assert not one_way, "a pair counts only where both directions have texts"
    METHODS["coder-rerank"].check(MethodRequest(card.name, 128, None), None, names)


def test_texts_are_shipped_for_the_demo():
    assert (FOLDER / "stamps.jsonl").is_file()
