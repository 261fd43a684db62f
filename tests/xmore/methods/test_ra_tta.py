"""RA-TTA against its formulas, over random views, sentences and memories."""

import json

import numpy as np
import pytest
from at_random import unit
from foreign_memory import context_over, stored, write_memory
from ra_tta_literal import literal, unit_mean

from xmore.files.errors import ConfigError
from xmore.methods.base import MethodRequest, QueryShard
from xmore.methods.options import MethodOptions
from xmore.methods.ra_tta.texts import described, template_of
from xmore.methods.registry import METHODS

TAU, C, D, QUERIES = 30.0, 6, 16, 12
SENTENCES = {f"class {c}": [f"It is {c}, {i}." for i in range(3 + c % 5)] for c in range(C)}
NAMES = list(SENTENCES)


class Bench:
    """Random views near their classes' descriptions, over a memory of `rows` vectors."""

    def __init__(self, folder, rows=60, views=101, leaked=(), dataset="any", spread=1.0):
        rng = np.random.default_rng(60)
        folder.mkdir(parents=True)
        (folder / "texts.json").write_text(json.dumps(SENTENCES))
        prompts = [[f"the {name}", f"my {name}"] for name in NAMES]
        before = template_of(dataset)
        self.texts, centres = {}, unit(rng, C, D)
        for name, centre, of_class in zip(NAMES, centres, prompts, strict=True):
            alone = before.replace("{}", name)
            plain = SENTENCES[name]
            for text in (*plain, *of_class, alone, *(f"{alone} {text}" for text in plain)):
                self.texts[text] = near(rng, centre, 1.2)
        first = before.replace("{}", NAMES[4])
        self.texts[f"{first} It is 4, 1."] = self.texts[f"{first} It is 4, 0."]  # a tie
        self.views = np.stack(
            [[near(rng, centres[i % C], spread) for _ in range(views)] for i in range(QUERIES)]
        )
        memory = unit(rng, rows, D)
        memory[rows // 2 :: 3] = memory[: len(memory[rows // 2 :: 3])]
        keys = write_memory(folder / "memory", memory)
        self.memory, self.out, self.q = stored(memory), leaked, 0.75
        self.context = context_over(
            folder / "memory", self.texts, prompts, TAU, frozenset(keys[j] for j in leaked),
            dataset, ratta={"descriptions": folder / "texts.json"},
        )  # fmt: skip
        self.dataset = dataset

    def score(self, *slices):
        score = METHODS["ra-tta"].prepare(self.context)
        return np.concatenate([score(QueryShard(views=self.views[s])) for s in slices])

    def literal(self, kept=None):
        described, classes = [], []
        for name, prompts in zip(NAMES, self.context.prompts, strict=True):
            alone = template_of(self.dataset).replace("{}", name)
            mine = [*(f"{alone} {text}" for text in SENTENCES[name]), alone]
            described.append([self.texts[text] for text in mine])
            classes.append(unit_mean([self.texts[text] for text in (*SENTENCES[name], *prompts)]))
        known = np.array(classes), self.memory, TAU, self.q, self.out
        rows = []
        for views in self.views:
            labels = []
            rows.append(literal(views, described, *known, kept=labels))
            if kept is not None:
                kept.append(labels)
        return np.array(rows)


def near(rng, centre, distance):
    row = centre + distance * rng.normal(size=D) / np.sqrt(D)
    return (row / np.linalg.norm(row)).astype(np.float32)


def assert_equal(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(got.argmax(1), expected.argmax(1))
    np.testing.assert_allclose(got.sum(1), 1)
    assert got.dtype == np.float64


@pytest.mark.parametrize("rows", [60, 20, 7, 1])
def test_scores_are_those_of_the_formulas(tmp_path, rows):
    bench = Bench(tmp_path / "x", rows)
    kept = []
    assert_equal(bench.score(slice(None)), bench.literal(kept))
    counts = {len(labels) for labels in kept}
    assert {1, 2} <= counts, "images that keep one class, and more"


def test_views_may_differ_and_an_image_may_keep_no_class(tmp_path):
    bench = Bench(tmp_path / "x", views=9, spread=2.0)
    kept = []
    assert_equal(bench.score(slice(None)), bench.literal(kept))
    assert [] in kept, "an image that keeps no class"


def test_imagenets_have_another_quantile_and_template(tmp_path):
    bench = Bench(tmp_path / "x", dataset="imagenet-v2")
    bench.q = 0.9
    assert_equal(bench.score(slice(None)), bench.literal())
    assert METHODS["ra-tta"].settings(bench.context.request, None)["quantile"].value == 0.9


def test_no_test_image_is_retrieved(tmp_path):
    bench = Bench(tmp_path / "x", leaked=range(0, 60, 2))
    assert_equal(bench.score(slice(None)), bench.literal())
    whole = Bench(tmp_path / "whole")
    assert np.abs(whole.score(slice(None)) - bench.score(slice(None))).max() > 1e-3


def test_where_no_class_is_kept_or_no_image_found_it_is_clip(tmp_path, monkeypatch):
    bench = Bench(tmp_path / "x", leaked=range(60))
    kept = []
    assert_equal(bench.score(slice(None)), bench.literal(kept))
    assert any(kept)
    monkeypatch.setattr("xmore.methods.ra_tta.ra_tta.LEAST", 21)
    np.testing.assert_array_equal(
        Bench(tmp_path / "y").score(slice(None)), bench.score(slice(None))
    )


def test_scores_do_not_depend_on_parts(tmp_path):
    bench = Bench(tmp_path / "x")
    parts = bench.score(slice(0, 1), slice(1, 8), slice(8, None))
    np.testing.assert_array_equal(parts, bench.score(slice(None)))


def test_descriptions_have_the_datasets_template_before_and_stand_after_it_alone(tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps({"tabby": ["It is striped."] * 4}))
    options = MethodOptions.model_validate({"ratta": {"descriptions": tmp_path / "texts.json"}})
    found = described(MethodRequest("oxford-pets", 1, None, options), ["tabby"])
    assert found.sentences == [["It is striped."] * 4]
    first = "a photo of a tabby, a type of pet."
    assert found.descriptions == [[f"{first} It is striped."] * 4 + [first]]
    assert template_of("stamps") == "a photo of a {}."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such file. `ra-tta` needs sentences for each class of `any`"),
        ("{", "not valid JSON"),
        ('{"dog": ["It barks."]}', "class 'cat' needs a list of 1 to 10000 sentences"),
        ('{"cat": ["a", "b", "c"]}', "no class has 4 sentences"),
    ],
)
def test_what_cannot_work_is_one_line(tmp_path, text, says):
    path = tmp_path / "texts.json"
    if text:
        path.write_text(text)
    options = MethodOptions.model_validate({"ratta": {"descriptions": path}})
    with pytest.raises(ConfigError, match=says) as refused:
        METHODS["ra-tta"].check(MethodRequest("any", 1, None, options), None, ["cat"])
    assert "\n" not in str(refused.value)
