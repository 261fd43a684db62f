"""The cards in data/: their numbers are the published ones, their names are as many."""

import csv
import json
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from xmore.datasets.card import CARDS, all_cards, load_card, named_classes
from xmore.datasets.obtain import can_get
from xmore.results.compare import REFERENCE

with (REFERENCE / "datasets.csv").open(newline="") as stream:
    PUBLISHED = {row["dataset"]: row for row in csv.DictReader(stream)}
LISTS = json.loads((Path(__file__).parent / "cases" / "class_lists.json").read_text())
OTHERS = {"stamps", "clip-art", "cub-200-2011"}


def key(name: str) -> str:
    """datasets.csv's name of a card's."""
    return name.replace("-", "").lower()


def test_there_is_a_card_for_each_dataset_of_the_paper():
    assert {key(name) for name in set(all_cards()) - OTHERS} == set(map(key, PUBLISHED))


@pytest.mark.parametrize("name", sorted(set(all_cards()) - OTHERS))
def test_a_card_expects_the_published_numbers(name):
    card, row = load_card(name), {key(k): v for k, v in PUBLISHED.items()}[key(name)]
    assert (card.expected.classes, card.expected.images) == (
        int(row["classes"]),
        int(row["test_images"]),
    )
    assert card.expected.source == row["source"]
    tables = [path.read_text() for path in REFERENCE.glob("table[12]*.csv")]
    assert any(f",{card.paper_name}," in text for text in tables)


@pytest.mark.parametrize("name", all_cards())
def test_a_card_names_as_many_classes_as_it_expects(name):
    card = load_card(name)
    for other in [None, *card.alternatives]:
        names = [text for _, text in named_classes(load_card(name, class_names=other)) or []]
        if name in ("stamps", "clip-art"):  # its folders are its classes, or it has none
            continue
        assert len(names) == card.expected.classes
        assert not [text for text in names if text != text.strip() or "_" in text or not text]
        twice = {text for text in names if names.count(text) > 1}
        assert twice == ({"missile", "sunglasses"} if names[0] == "tench" else set())
    assert card.licence and card.title and card.prompt == "a photo of a {}."
    if name not in ("stamps", "clip-art"):
        assert can_get(card) or card.obtain.steps
        assert card.obtain.page.startswith("http") and card.folder


@pytest.mark.parametrize("name", LISTS["names"])
def test_the_names_are_those_that_the_papers_numbers_rest_on(name):
    names = [text for _, text in named_classes(load_card(name))]
    assert sha256("\n".join(names).encode()).hexdigest() == LISTS["names"][name]


@pytest.mark.parametrize("name", LISTS["folders"])
def test_the_folders_are_those_of_the_variants(name):
    folders = [folder for folder, _ in named_classes(load_card(name))]
    assert sha256("\n".join(folders).encode()).hexdigest() == LISTS["folders"][name]


def test_imagenets_variants_name_imagenets_classes_by_their_folders():
    known = dict(named_classes(load_card("imagenet")))
    assert known == dict(named_classes(load_card("imagenet-sketch")))
    for name in ("imagenet-a", "imagenet-r"):
        pairs = named_classes(load_card(name))
        assert all(known[folder] == text for folder, text in pairs)
        assert [folder for folder, _ in pairs] == sorted(folder for folder, _ in pairs)
    numbered = named_classes(load_card("imagenet-v2"))
    assert numbered == [(str(i), text) for i, text in enumerate(known.values())]


def test_every_list_of_classes_tells_its_source_and_is_used():
    used = set()
    for name in all_cards():
        card = yaml.safe_load((CARDS / f"{name}.yaml").read_text())
        used |= {Path(path).name for path in card.get("alternatives", {}).values()}
        used |= {Path(card["classes"]).name} if "classes" in card else set()
    there = sorted((CARDS / "classes").glob("*.txt"))
    assert {path.name for path in there} == used
    assert all(path.read_text().startswith("# Source: ") for path in there)


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*.csv")), ids=lambda path: path.stem)
def test_the_papers_tables_are_tables(path):
    with path.open(newline="", encoding="utf-8") as stream:
        head, *rows = csv.reader(stream)
    value = head.index("test_images") if path.stem == "datasets" else len(head) - 2
    assert rows and all(head) and head[-1] in ("errata", "source")
    assert all(len(row) == len(head) and float(row[value]) > 0 for row in rows)
