"""Loading of configs from YAML files; their paths become absolute."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from xmore.config.benchmark import BenchmarkConfig
from xmore.config.memory import ReindexConfig
from xmore.files.errors import ConfigError
from xmore.files.yaml import explain, load_yaml, yaml_value

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: Path, kind: type[Model]) -> Model:
    """Read a YAML file into `kind`; relative paths in it are relative to the file's folder.

    Raises ConfigError with one line: the file, the key, its value and what to do.
    """
    data = load_yaml(path)
    _check_kind(path, data, kind)
    try:
        return kind.model_validate(data, context={"base": path.resolve().parent})
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, kind)}") from error


def change_config(path: Path, changes: dict[str, Any], folder: Path) -> BenchmarkConfig:
    """Load the benchmark's config in `path` with some keys changed; other keys of a section stay.

    `changes` maps dotted keys (`retrieval.fine`) to values; relative paths in them are relative
    to `folder`. Raises ConfigError.
    """
    data = load_config(path, BenchmarkConfig).model_dump(mode="json", exclude_unset=True)
    return changed_config(data, changes, folder, str(path))


def changed_config(
    data: dict[str, Any], changes: dict[str, Any], folder: Path, name: str
) -> BenchmarkConfig:
    """Return a benchmark's config with some keys changed: see `change_config`. Raises ConfigError.

    `name` is where `data` comes from; its own relative paths are relative to `folder`, too.
    """
    for key, value in changes.items():
        *sections, last = key.split(".")
        nested: dict[str, Any] = {last: value}
        for section in reversed(sections):
            nested = {section: nested}
        data = _merge(data, nested)
    try:
        return BenchmarkConfig.model_validate(data, context={"base": folder})
    except ValidationError as error:
        raise ConfigError(f"{name}, changed: {explain(error, BenchmarkConfig)}") from error


def read_changes(texts: list[str]) -> dict[str, Any]:
    """Return the changes that `--set` asks for: texts `KEY=VALUE` -> dotted key to value.

    Raises ConfigError.
    """
    changes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(f"--set {text}: write KEY=VALUE, as in retrieval.candidates=64.")
        if key in changes:
            raise ConfigError(f"--set: the key `{key}` is there twice. Name it once.")
        try:
            changes[key] = yaml_value(value)
        except ValueError as error:
            raise ConfigError(f"--set {text}: {error}.") from error
    return changes


def _merge(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(data)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(data.get(key), dict)
        merged[key] = _merge(data[key], value) if both else value
    return merged


def _check_kind(path: Path, data: dict[str, Any], kind: type[BaseModel]) -> None:
    """Raise ConfigError for a YAML file of another kind, and name the right command."""
    if kind in (BenchmarkConfig, ReindexConfig) and "base" in data:
        raise ConfigError(f"{path}: is a sweep's config; use `xmore sweep {path}`.")
    if kind is BenchmarkConfig and "datasets" not in data:
        if "root" in data:
            raise ConfigError(f"{path}: is a dataset's card; put it in a config's `datasets`.")
        if "sources" in data:
            raise ConfigError(f"{path}: is a memory's config; use `xmore reindex {path}`.")
    trains = "output" in kind.model_fields
    if (kind is ReindexConfig or trains) and "datasets" in data:
        raise ConfigError(f"{path}: is a benchmark's config; use `xmore benchmark {path}`.")
    if kind in (BenchmarkConfig, ReindexConfig) and "output" in data:
        raise ConfigError(f"{path}: is a config of RECO's training; use `xmore reco-train {path}`.")
    if trains and "sources" in data:
        raise ConfigError(f"{path}: is a memory's config; use `xmore reindex {path}`.")


def absolute(config: Model) -> Model:
    """Return the config with its relative paths resolved against the working directory.

    A deployment's parameters do not come from a file to which they could be relative.
    """
    data = config.model_dump(mode="json", exclude_unset=True)
    return type(config).model_validate(data, context={"base": Path.cwd()})
