"""Cards and the folders behind them."""

import numpy as np
import pytest
from PIL import Image

from xmore.datasets.card import load_card
from xmore.datasets.scan import scan
from xmore.files.errors import ConfigError, DatasetError


@pytest.fixture
def root(tmp_path):
    """Two classes of two images, and a card."""
    for name in ("big_cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(2):
            pixels = np.full((8, 8, 3), 40 * i + len(name), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    (tmp_path / "card.yaml").write_text("name: pets\nroot: images\n")
    return tmp_path


def scanned(root, limit=0.05):
    return scan(load_card(str(root / "card.yaml")), root / "cache", limit)


def test_folders_are_classes_in_order(root):
    found = scanned(root)
    assert found.class_names == ["big cat", "dog"]
    assert [(q.uri, q.label) for q in found.queries] == [
        ("big_cat/0.png", 0),
        ("big_cat/1.png", 0),
        ("dog/0.png", 1),
        ("dog/1.png", 1),
    ]
    assert found.rejected == [] and len({q.sha256 for q in found.queries}) == 4


def test_a_card_may_name_and_order_its_classes(root):
    (root / "card.yaml").write_text(
        "name: pets\nroot: images\nclasses: {dog: hound, big_cat: lion}\n"
    )
    found = scanned(root)
    assert found.class_names == ["hound", "lion"] and found.queries[0].label == 1


def test_unreadable_images_are_set_aside_by_cause(root):
    images = root / "images" / "dog"
    (images / "zero.jpg").write_bytes(b"")
    (images / "text.jpg").write_bytes(b"hello")
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(images / "cut.png")
    (images / "cut.png").write_bytes((images / "cut.png").read_bytes()[:1000])
    (images / "gone.png").symlink_to(images / "nowhere.png")
    (images / "away.png").symlink_to("/etc/hostname")
    found = scanned(root, limit=1)
    assert dict(found.rejected) == {
        "dog/away.png": "link out of the root",
        "dog/cut.png": "truncated or damaged",
        "dog/gone.png": "no such file",
        "dog/text.jpg": "not an image",
        "dog/zero.jpg": "empty file",
    }
    assert len(found.queries) == 4
    assert scanned(root, limit=1) == found  # from the cache
    with pytest.raises(DatasetError, match="5 of 9 images cannot be used"):
        scanned(root)


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ("name: pets\nroot: nowhere\n", "no folder"),
        ("name: pets\nroot: images/dog\n", "0 class folders"),
        ("name: pets\nroot: images\nclasses: {dog: a, big_cat: a}\n", "two classes are named 'a'"),
        ("name: pets\nroot: images\nclasses: {dog: a, cow: b}\n", "differ in big_cat, cow"),
    ],
)
def test_what_is_wrong_with_a_card_is_one_line(root, card, says):
    (root / "card.yaml").write_text(card)
    with pytest.raises(DatasetError, match=says) as error:
        scanned(root)
    assert "\n" not in str(error.value)


def test_a_class_without_images_and_a_folder_that_leads_away(root):
    (root / "images" / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no images in .*empty"):
        scanned(root)
    (root / "images" / "empty").rmdir()
    (root / "images" / "away").symlink_to("/usr")
    with pytest.raises(DatasetError, match="leads out of the root"):
        scanned(root)


@pytest.mark.parametrize("text", ["name: x\n", "nme: x\nroot: .\n", "- a\n", "name: [\n"])
def test_a_bad_card_is_a_config_error(tmp_path, text):
    (tmp_path / "card.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"card\.yaml"):
        load_card(str(tmp_path / "card.yaml"))


def test_an_unknown_card_says_which_there_are():
    with pytest.raises(ConfigError, match="stamps"):
        load_card("stmps")
