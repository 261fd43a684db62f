"""What stands for a class: a sentence, templates, descriptions; their mean."""

import json

import numpy as np
import pytest

from xmore.datasets.prompts import class_prompts
from xmore.files.errors import ConfigError
from xmore.files.paths import PROJECT_ROOT
from xmore.methods.scoring import class_features

NAMES = ["cat", "big dog"]


def test_one_template_gives_one_sentence():
    found = class_prompts(NAMES, "a photo of a {}.", None)
    assert found == [["a photo of a cat."], ["a photo of a big dog."]]


def test_clips_eighty_templates_are_eighty():
    found = class_prompts(NAMES, "ignored {}", PROJECT_ROOT / "data" / "prompts" / "openai-80.txt")
    assert [len(texts) for texts in found] == [80, 80]
    assert found[0][0] == "a bad photo of a cat." and not [t for t in found[1] if "{" in t]


def test_descriptions_are_of_each_class(tmp_path):
    texts = {"cat": ["it purrs"], "big dog": ["it barks", "it is large"], "cow": ["unused"]}
    (tmp_path / "d.json").write_text(json.dumps(texts))
    assert class_prompts(NAMES, "", tmp_path / "d.json") == [texts["cat"], texts["big dog"]]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("t.txt", "a photo of a cat\n", "needs `{}`"),
        ("t.txt", "# only a comment\n", "got 0"),
        ("t.txt", "a {}\n\nthe {}\n", "line 2: is blank"),
        ("t.txt", "a {}\nthe {}\na {} \n", "line 3: 'a {}' repeats line 1"),
        ("t.txt", "a {}\nthe cat\n", "line 2: a template needs"),
        ("d.json", "{", "not valid JSON"),
        ("d.json", '{"cat": ["x"], "big dog": ["y"], "cat ": ["z"]}', "'cat' is there twice"),
        ("d.json", '{"cat": ["x"], "big dog": [" "]}', "'big dog' needs a list"),
        ("d.json", "[]", "must map"),
        ("d.json", '{"cat": ["x"]}', "'big dog' needs a list"),
        ("d.json", '{"cat": ["x"], "big dog": []}', "'big dog' needs a list"),
        ("d.json", '{"cat": ["x", 3], "big dog": ["y"]}', "'cat' needs a list"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(tmp_path, file, text, says):
    (tmp_path / file).write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        class_prompts(NAMES, "", tmp_path / file)
    assert str(tmp_path / file) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        class_prompts(NAMES, "", tmp_path / "nowhere.txt")


def test_marks_and_spaces_are_no_part_of_a_prompt(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbf#{} is a tag \r\nthe {}\r\n\r\n")
    found = class_prompts(NAMES, "", tmp_path / "t.txt")
    assert found == [["#cat is a tag", "the cat"], ["#big dog is a tag", "the big dog"]]
    (tmp_path / "d.json").write_bytes(b'\xef\xbb\xbf{"cat ": [" purrs "], "big dog": ["barks"]}')
    assert class_prompts(NAMES, "", tmp_path / "d.json") == [["purrs"], ["barks"]]


def test_a_class_is_the_normalised_mean_of_its_prompts():
    prompts = np.array([[1, 0], [0.6, 0.8], [1, 0], [0, 1]], np.float32)
    found = class_features(prompts, [1, 1, 2])
    assert np.array_equal(found[:2], prompts[:2])  # one prompt: as it is, to the last bit
    assert np.allclose(found[2], [0.5**0.5, 0.5**0.5]) and found.dtype == np.float32
