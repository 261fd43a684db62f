"""Write docs/reference/*.md from the code: `make docs`. With --check, only report stale pages."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, get_args, get_origin

import duckdb
import pyarrow as pa
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click
from typer.main import get_command

from flows.cli.main import commands
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.memory import ReindexConfig
from xmore.config.reco import RecoTrainConfig
from xmore.config.sweep import SweepConfig
from xmore.datasets.card import DatasetCard
from xmore.files.paths import PROJECT_ROOT, write_whole
from xmore.results.views import RAW_NAMES, WITH_MODEL, WITH_PROMPTS, flat_views
from xmore.store import schemas

FOLDER = Path(__file__).with_name("reference")
MADE = "<!-- Made from the code by `make docs`; do not edit. -->\n\n"
ROOTS = {
    BenchmarkConfig: "A benchmark: `xmore benchmark CONFIG`",
    ReindexConfig: "A memory: `xmore reindex CONFIG`",
    RecoTrainConfig: "RECO's training: `xmore reco-train CONFIG`",
    SweepConfig: "A sweep: `xmore sweep CONFIG`",
    DatasetCard: "A dataset's card: in a benchmark's `datasets`",
}
ANY_DIM = 512  # a placeholder, printed as D: each model has its own
SCHEMAS = {
    "queries": schemas.QUERIES,
    "classes": schemas.CLASSES,
    "rejected": schemas.REJECTED,
    "query_embeddings": schemas.query_embeddings(ANY_DIM),
    "view_embeddings": schemas.view_embeddings(ANY_DIM),
    "candidates": schemas.CANDIDATES,
    "leaks": schemas.LEAKS,
    "captions": schemas.CAPTIONS,
    "caption_embeddings": schemas.caption_embeddings(ANY_DIM),
    "scores": schemas.SCORES,
    "method_scores": schemas.METHOD_SCORES,
    "predictions": schemas.PREDICTIONS,
    "metrics": schemas.METRICS,
    "comparisons": schemas.COMPARISONS_OF_SETS,
    "image_captions": schemas.IMAGE_CAPTIONS,
    "ranks": schemas.RANKS,
    "retrieval_metrics": schemas.RETRIEVAL_METRICS,
    "retrieval_comparisons": schemas.RETRIEVAL_COMPARISONS,
}


def main() -> int:
    """Write all pages; with --check, name the stale ones and return 1 if there are any."""
    pages = {"cli": cli(), "config": config(), "schemas": tables()}
    stale = [name for name, text in pages.items() if _read(name) != text]
    if "--check" in sys.argv:
        for name in stale:
            print(f"docs/reference/{name}.md: differs from the code. Run `make docs`.")
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        (FOLDER / f"{name}.md").write_text(pages[name], encoding="utf-8")
    return 0


def cli() -> str:
    """Return Typer's page of every command with its arguments and options, with relative paths."""
    command = get_command(commands)
    _use_full_help(command)
    text = get_docs_for_click(obj=command, ctx=command.context_class(command), name="xmore")
    return MADE + html.unescape(text).replace(f"{PROJECT_ROOT}/", "").rstrip() + "\n"


def _use_full_help(command: Any) -> None:
    """List each command with its full help, which Typer would cut at 45 characters."""
    for inner in getattr(command, "commands", {}).values():
        inner.short_help = inner.help
        _use_full_help(inner)


def config() -> str:
    """Return a page of every key of each kind of YAML, one table per section."""
    parts = [MADE + "# Configs and cards\n"]
    for root, title in ROOTS.items():
        parts.append(f"## {title}\n\n{_first_line(root)}\n\n{_keys(root)}")
        for section in _sections(root):
            parts.append(f"### {_name(section)}\n\n{_first_line(section)}\n\n{_keys(section)}")
    return "\n".join(parts)


def tables() -> str:
    """Return a page of every artifact's columns, and of a run's views."""
    parts = [
        f"{MADE}# Artifacts and views\n\n## Artifacts\n\n"
        "`results/store/<stage>/<dataset>/<digest>/part-*.parquet`. Views of a run add `dataset`, "
        "and `model`, `m` and `prompt_set` if there may be several; that of `view_embeddings` adds "
        "`augmix` and `view_count`. A column holds nulls only if its meaning says so. D is the "
        "number of a model's features.\n"
    ]
    for stage, schema in SCHEMAS.items():
        rows = [(f"`{f.name}`", _arrow(f.type), _meaning(f.name)) for f in schema]
        version = schemas.STAGE_VERSIONS[stage]
        parts.append(f"### {stage}, version {version}\n\n{_table(('column', 'type', ''), rows)}")
    parts.append(
        "## Views\n\n`xmore sql RUN`, or `duckdb -init results/runs/<run>/views.sql`; in addition, "
        "each artifact is a view with the name of its stage.\n"
    )
    for name, comment, columns in _views():
        parts.append(f"### {name}\n\n{comment}{_table(('column', 'type'), columns)}")
    return "\n".join(parts)


def _views() -> Iterator[tuple[str, str, list[tuple[str, ...]]]]:
    """Yield the flat views: name, the comment above the SQL, columns and types."""
    db = duckdb.connect()
    for stage, schema in SCHEMAS.items():
        fields = list(schema)
        extra = ["dataset"] if stage != "comparisons" else []
        extra += ["model"] if stage in WITH_MODEL else []
        extra += ["prompt_set"] if stage in WITH_PROMPTS else []
        fields = [pa.field(name, pa.string()) for name in extra] + fields
        if stage == "scores":
            fields.append(pa.field("m", pa.int32()))
        db.register(RAW_NAMES.get(stage, stage), pa.schema(fields).empty_table())
    above = r"((?:^-- .*\n)*)create or replace view (\w+) as"
    with TemporaryDirectory() as folder:  # the view `runs` reads run.json when it is used
        run = Path(folder) / "run"
        write_whole(run / "run.json", b"{}")
        text = flat_views(run)
        db.execute(text)
        for comment, name in re.findall(above, text, re.M):
            note = comment.replace("-- ", "").strip()
            described = db.execute(f"describe {name}").fetchall()
            columns = [(f"`{column}`", f"`{kind.lower()}`") for column, kind, *_ in described]
            yield name, f"{note}\n\n" if note else "", columns


def _keys(kind: type[BaseModel]) -> str:
    rows = []
    for key, field in kind.model_fields.items():
        inner = _models(field.annotation)
        meaning = field.description or (_first_line(inner[0]) if len(inner) == 1 else "")
        if not meaning and not inner and get_origin(field.annotation) is not Literal:
            raise SystemExit(f"{kind.__name__}.{key} has no description; add one.")
        default = "required" if field.is_required() else _default(field)
        rows.append((f"`{key}`", _type(field.annotation), default, meaning))
    return _table(("key", "type", "default", ""), rows)


def _sections(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield the models inside `kind`, each once, in the order of their fields."""
    seen: dict[type[BaseModel], None] = {}
    todo = [kind]
    while todo:
        for field in todo.pop(0).model_fields.values():
            for inner in _models(field.annotation):
                if inner not in seen:
                    seen[inner] = None
                    todo.append(inner)
    yield from seen


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (list, dict):
        return f"{origin.__name__} of {' to '.join(_type(each) for each in inner)}"
    if inner:  # a union
        return " or ".join(_type(each) for each in inner if each is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{_name(annotation)}](#{_name(annotation).lower()})"
    names = {str: "text", Path: "path", bool: "true or false", Any: "anything"}
    return names.get(annotation) or annotation.__name__


def _default(field: Any) -> str:
    if field.default_factory_takes_validated_data:
        return ""  # it depends on other keys, as the description says
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    if isinstance(value, Path):
        value = value.relative_to(PROJECT_ROOT) if value.is_absolute() else value
    if value in ("", [], {}):
        return ""
    text = yaml.safe_dump(str(value) if isinstance(value, Path) else value, default_flow_style=True)
    return f"`{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


def _arrow(kind: pa.DataType) -> str:
    """Format an Arrow type as code: a bare <int64> would be read as HTML."""
    return f"`{kind}`".replace("item: ", "").replace(f"[{ANY_DIM}]", "[D]")


def _meaning(column: str) -> str:
    if column not in schemas.COLUMNS:
        raise SystemExit(f"schemas.COLUMNS does not describe `{column}`; add it.")
    return schemas.COLUMNS[column]


def _name(kind: type[BaseModel]) -> str:
    return kind.__name__.removesuffix("Config")


def _first_line(kind: type[BaseModel]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def _read(name: str) -> str:
    path = FOLDER / f"{name}.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
