import sys
from collections import Counter
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from xmore.files.errors import ConfigError
from xmore.methods.coder.generate import (
    MAX_LINES,
    ROUNDS,
    Sense,
    Sources,
    Tally,
    attribute_prompt,
    generate,
    phrases,
)
from xmore.methods.coder.texts import read_texts
from xmore.methods.coder.wordnet import open_wordnet

NAMES = ["cat", "dog", "owl"]


def encode(texts):
    """Axis 0, 1, 2 for what has cat, dog, owl in it, else axis 3; nearer to axis 0 the longer."""
    vectors = np.zeros((len(texts), 4), np.float32)
    for row, text in enumerate(texts):
        axis = next((i for i, name in enumerate(NAMES) if name in text), 3)
        vectors[row, axis] = 1
        vectors[row, 0] += len(text) / 1000
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(kinds, tally=None, names=NAMES, nearest=2, **sources):
    by = {"senses_by": "a book", "asked_by": "a model"}
    rows = generate(names, kinds, Sources(**(by | sources)), nearest, tally or Tally())
    return [row.model_dump(exclude_none=True) for row in rows]


def test_phrases_are_clean_lines():
    answer = (
        "Here they are:\n- long tail.\n* \"four legs\"\n3. whiskers\n\u2022 long tail\n\n"
        "1.5 m of fur\n-\n- \x1b[31mred\n- 42\n- " + "x" * 201 + "\n_sharp claws\n"
    )  # fmt: skip
    tally = Tally()
    assert phrases(answer, tally) == [
        "long tail", "four legs", "whiskers", "1.5 m of fur", "sharp claws"
    ]  # fmt: skip
    assert tally.dropped == {
        "not a phrase": 2, "repeated": 1, "control characters": 1, "longer than 200 characters": 1
    }  # fmt: skip
    assert phrases("", Tally()) == []
    many = phrases("\n".join(f"- thing {i}x" for i in range(30)), tally)
    assert len(many) == MAX_LINES and tally.dropped[f"beyond {MAX_LINES} lines"] == 10


def test_attributes_and_pairs_become_sentences(tmp_path):
    asked = []

    def ask(prompt):
        asked.append(prompt)
        return "- large eyes\n- soft fur."

    rows = made(["attribute", "versus"], ask=ask)
    assert rows[0] == {
        "class": "cat", "kind": "attribute", "text": "a cat, which has large eyes.",
        "made_by": "a model",
    }  # fmt: skip
    assert rows[6] | {"text": ""} == {
        "class": "cat", "kind": "versus", "other": "dog", "text": "", "made_by": "a model"
    }  # fmt: skip
    assert rows[6]["text"] == "a cat rather than a dog, by large eyes."
    pairs = Counter((row["class"], row["other"]) for row in rows[6:])
    assert len(pairs) == 6 and set(pairs.values()) == {2}, "both directions of all pairs"
    assert asked[0] == attribute_prompt("cat") and "an owl" in asked[2]
    path = tmp_path / "made.jsonl"
    sources = Sources(ask=ask, asked_by="m")
    lines = [row.line() for row in generate(NAMES, ["attribute", "versus"], sources, 2, Tally())]
    path.write_text("".join(lines))
    assert len(read_texts(path, NAMES).versus) == 6


def test_with_an_encoder_only_near_classes_are_told_apart():
    rows = made(["versus"], ask=lambda prompt: "- it", encode=encode, nearest=1)
    # dog's and owl's nearest is cat; cat's is the first of two alike
    assert {(row["class"], row["other"]) for row in rows} == {
        ("cat", "dog"), ("dog", "cat"), ("owl", "cat"), ("cat", "owl")
    }  # fmt: skip


def test_too_many_pairs_are_refused():
    with pytest.raises(ConfigError, match=r"100 classes need 9,900 requests.*--config"):
        made(["versus"], names=[f"c{i}" for i in range(100)], ask=str)


def test_analogues_that_are_another_class_are_asked_again():
    asked = []

    def ask(prompt):
        asked.append(prompt)
        if "the cat" in prompt or "a cat" in prompt:
            return (
                "- tiger\n- wildcat\n- Dog\n- hot dogs"
                if len(asked) == 1
                else "- lynx\n- lion\n- puma"
            )
        return "- lamp"

    tally = Tally()
    rows = made(["analogue"], tally, ask=ask, encode=encode)
    texts = [row["text"] for row in rows if row["class"] == "cat"]
    assert texts == [
        f"a cat, which looks like a {name}." for name in ("tiger", "wildcat", "lynx", "lion")
    ]
    assert "Give 2 more" in asked[1] and "Dog, hot dogs" in asked[1]
    assert tally.dropped["an analogue too near to another class"] == 2


@pytest.mark.parametrize(("encoder", "rounds"), [(encode, ROUNDS), (None, ROUNDS)])
def test_analogues_are_asked_again_five_times_at_most(encoder, rounds):
    asked = []

    def ask(prompt):
        asked.append(prompt)
        return "- dog"

    tally = Tally()
    rows = made(["analogue"], tally, ["cat", "dog"], ask=ask, encode=encoder)
    of_cat = [prompt for prompt in asked if "a cat visually" in prompt]
    assert len(of_cat) == 1 + rounds
    assert [row["text"] for row in rows] == ["a dog, which looks like a dog."] or not rows
    assert tally.empty["analogue"] >= 1


def test_synonyms_are_of_the_sense_that_the_name_is_near_to():
    senses = [
        Sense("a person of the jazz age", ["guy", "cat"]),
        Sense("a feline cat", ["cat", "true_cat", "dog", "mog"]),
    ]
    tally, of = Tally(), {"cat": senses, "dog": []}
    rows = made(["synonym"], tally, ["cat", "dog"], senses=of.get, encode=encode)
    assert [row["text"] for row in rows] == ["true cat", "mog"]
    assert {row["made_by"] for row in rows} == {"a book"}
    assert tally.dropped["a synonym that is another class"] == 1
    assert tally.empty["synonym"] == 1, "dog has none"
    first = made(["synonym"], names=["cat", "dog"], senses=lambda name: senses)
    assert [row["text"] for row in first if row["class"] == "cat"] == ["guy"]


def test_what_no_file_may_hold_is_dropped():
    tally = Tally()
    rows = made(["attribute"], tally, ["c" * 600, "cat"], ask=lambda prompt: "- fur")
    assert [row["class"] for row in rows] == ["cat"]
    assert tally.dropped["not fit for a file"] == 1


class Wordnet:
    """What `wordnet` of NLTK has, as far as it is used."""

    def get_version(self):
        return "3.0"

    def synsets(self, word, pos):
        assert (word, pos) == ("marine_mammal", "n")
        lemmas = SimpleNamespace(
            definition=lambda: "any of numerous mammals of the sea",
            lemma_names=lambda: ["marine_mammal", "sea_mammal"],
        )
        return [lemmas]


def fake_nltk(monkeypatch, wordnet):
    corpus = ModuleType("nltk.corpus")
    corpus.wordnet = wordnet
    nltk = ModuleType("nltk")
    nltk.corpus = corpus
    monkeypatch.setitem(sys.modules, "nltk", nltk)
    monkeypatch.setitem(sys.modules, "nltk.corpus", corpus)


def test_wordnet_through_nltk(monkeypatch):
    fake_nltk(monkeypatch, Wordnet())
    senses, by = open_wordnet()
    assert by == "WordNet 3.0 through NLTK"
    rows = made(["synonym"], names=["marine mammal"], senses=senses, senses_by=by)
    assert [(row["text"], row["made_by"]) for row in rows] == [("sea mammal", by)]


def test_nltk_or_its_data_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(ConfigError, match="pip install nltk"):
        open_wordnet()

    class Empty:
        def get_version(self):
            raise LookupError("Resource wordnet not found, in many lines")

    fake_nltk(monkeypatch, Empty())
    with pytest.raises(ConfigError, match=r"nltk\.downloader wordnet"):
        open_wordnet()
