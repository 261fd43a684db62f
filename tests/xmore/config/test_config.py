import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import load_config
from xmore.config.memory import ReindexConfig
from xmore.config.reco import RecoTrainConfig
from xmore.files.errors import ConfigError
from xmore.models.spec import ModelSpec

CASES = json.loads((Path(__file__).parents[2] / "cases" / "config.json").read_text())
ROOT = Path(__file__).parents[3]


def write(folder, data):
    path = folder / "run.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
    return path


def refused(path, kind=BenchmarkConfig):
    """The message, which must be one line that begins with the file."""
    with pytest.raises(ConfigError) as error:
        load_config(path, kind)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path))


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir("/")
    config = load_config(write(tmp_path / "configs", CASES["good"]), BenchmarkConfig)
    assert config.memory == tmp_path / "memory"
    assert config.datasets == ["pets", str(tmp_path / "configs/cards/birds.yaml")]
    assert config.model("tiny") == ModelSpec(
        folder=tmp_path / "configs/models/tiny", precision="fp32"
    )
    assert config.model("RN50/openai") == ModelSpec(
        architecture="RN50", pretrained="openai", precision="fp32"
    )


def test_a_relative_name_of_the_file_gives_absolute_paths(tmp_path, monkeypatch):
    write(tmp_path, CASES["good"])
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("run.yaml"), BenchmarkConfig)
    assert config.memory == tmp_path.parent / "memory"


def test_absolute_and_home_paths_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/elsewhere")
    data = CASES["good"] | {"memory": "/big/memory", "results": "~/results"}
    config = load_config(write(tmp_path, data), BenchmarkConfig)
    assert (config.memory, config.results) == (Path("/big/memory"), Path("/elsewhere/results"))


def test_defaults_are_the_papers(tmp_path):
    config = load_config(write(tmp_path, CASES["good"]), BenchmarkConfig)
    assert (config.retrieval.candidates, config.retrieval.captions) == (128, [16])
    assert (config.retrieval.fine, config.retrieval.deduplicate) == ("direct", True)
    assert config.prompt is None and len(config.seeds) == 3  # the card's prompt: the paper's
    assert set(config.methods) == {"clip", "caption-ensemble", "equal", "xmore"}


def test_without_a_memory_the_default_methods_are_those_that_need_none(tmp_path):
    alone = {"datasets": ["pets"], "roles": {"inference": ["RN50/openai"]}}
    config = load_config(write(tmp_path, alone), BenchmarkConfig)
    assert config.memory is None and config.methods == ["clip"]
    assert config.roles.models == ["RN50/openai"]
    again = BenchmarkConfig.model_validate(config.model_dump(mode="json"))
    assert again == config and "methods" not in config.model_dump(exclude_unset=True)


def test_m_may_equal_k(tmp_path):
    data = CASES["good"] | {"retrieval": {"candidates": 4, "captions": [1, 4]}}
    assert load_config(write(tmp_path, data), BenchmarkConfig).retrieval.captions == [1, 4]


def test_a_memory_config(tmp_path):
    images = {"images": {"folder": "../i", "captions": "c.parquet"}}
    data = {"memory": "m", "sources": [images], "model": {"folder": "t"}}
    config = load_config(write(tmp_path, data), ReindexConfig)
    assert config.sources[0].images.folder == tmp_path.parent / "i"
    assert config.model.folder == tmp_path / "t"
    urls = {"name": "web", "urls": {"path": "l.csv"}}
    far = {"name": "far", "urls": {"path": "s3://bucket/l.parquet"}}
    config = load_config(write(tmp_path, data | {"sources": [urls, far]}), ReindexConfig)
    places = [source.urls.path for source in config.sources]
    assert places == [str(tmp_path / "l.csv"), "s3://bucket/l.parquet"]
    for bad, says in (
        ([images, images], "two sources have the name `images`"),
        ([{**images, **urls}], "a source is one of"),
        ([{"images": {"foldr": "i"}}], "Did you mean `folder`"),
        ([{**images, "filters": {"nsfw": ["x"]}}], "needs a URL list"),
        ([{**urls, "filters": {"languages": ["English"]}}], "ISO 639-1"),
        ([], "sources"),
    ):
        assert says in refused(write(tmp_path, data | {"sources": bad}), ReindexConfig)
    assert "`model.fodler`" in refused(
        write(tmp_path, data | {"model": {"fodler": "t"}}), ReindexConfig
    )


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_configs_of_the_repository_load(path):
    kinds = {"datasets": BenchmarkConfig, "sources": ReindexConfig, "output": RecoTrainConfig}
    kind = next(kind for key, kind in kinds.items() if key in yaml.safe_load(path.read_text()))
    memory = load_config(path, kind).memory
    assert memory.is_absolute() if memory else path.stem in ("image-only", "retrieval")


def test_a_config_of_another_kind_names_its_command():
    names = {"demo": BenchmarkConfig, "demo-memory": ReindexConfig, "demo-reco": RecoTrainConfig}
    commands = {"demo": "benchmark", "demo-memory": "reindex", "demo-reco": "reco-train"}
    for name, command in commands.items():
        for other in {*names} - {name}:
            path = ROOT / "configs" / f"{name}.yaml"
            assert f"use `xmore {command} {path}`" in refused(path, names[other])


@pytest.mark.parametrize("case", CASES["bad"], ids=lambda case: case["why"])
def test_a_bad_value_is_named(tmp_path, case):
    data = CASES["good"] | case.get("set", {})
    data = {key: value for key, value in data.items() if key not in case.get("drop", [])}
    message = refused(write(tmp_path, data))
    assert [part for part in case["says"] if part not in message] == [], message


@pytest.mark.parametrize("case", CASES["bad_yaml"], ids=lambda case: case["why"])
def test_bad_yaml_is_named(tmp_path, case):
    message = refused(write(tmp_path, case["yaml"]))
    assert [part for part in case["says"] if part not in message] == [], message


def test_files_that_cannot_be_read(tmp_path):
    assert "No such file" in refused(tmp_path / "absent.yaml")
    assert "directory" in refused(tmp_path).lower()
    (tmp_path / "run.yaml").write_bytes(b"name: \xff\xfe")
    assert "line 1: not UTF-8" in refused(tmp_path / "run.yaml")


BUGS = {
    "a date that is none": "name: !!timestamp 2020-99-99\n",
    "a number that is none": "name: !!int 0b_\n",
    "a tag that does not fit": "name: !!int abc\n",
    "a home that is none": "results: ~no-such-user/results\n",
    "a line break in a key": '"a\\nb": 1\n',
    "a line break in a name": 'methods: ["a\\nb"]\n',
}


@pytest.mark.parametrize("why", BUGS)
def test_odd_values_are_refused_in_one_line(tmp_path, why):
    key = BUGS[why].partition(":")[0]
    others = {name: value for name, value in CASES["good"].items() if name != key}
    assert "twice" not in refused(write(tmp_path, yaml.safe_dump(others) + BUGS[why]))


def test_a_misspelt_required_key_is_suggested(tmp_path):
    data = {("memroy" if key == "memory" else key): v for key, v in CASES["good"].items()}
    assert "memroy" in refused(write(tmp_path, data))


text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="~"), max_size=6)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text
values = st.recursive(
    scalars,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(text | st.integers(), v, max_size=3),
)
keys = st.sampled_from([*BenchmarkConfig.model_fields, "candidates", "fine", "folder"])
near = st.recursive(
    st.dictionaries(keys | text, values, max_size=4),
    lambda v: st.dictionaries(keys, v | values, max_size=4),
    max_leaves=4,
)


@given(near, st.booleans())
def test_whatever_it_holds_it_loads_or_is_refused(tmp_path_factory, data, complete):
    path = write(tmp_path_factory.getbasetemp(), CASES["good"] | data if complete else data)
    for kind in (BenchmarkConfig, ReindexConfig):
        try:
            load_config(path, kind)
        except ConfigError as error:
            assert str(error).startswith(str(path))
