"""views.sql of a run: DuckDB views over exactly the artifacts that it built or reused."""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import duckdb
import pyarrow as pa

from xmore.files.digests import digest_text
from xmore.files.errors import ArtifactError, RunError, is_shortage
from xmore.files.paths import real, write_whole
from xmore.files.progress import track
from xmore.files.sql import allow_only, as_pattern, quote, quote_all, quote_files
from xmore.methods.adjust import ADJUSTMENTS
from xmore.methods.registry import METHODS
from xmore.results.absent import is_absent, is_removed
from xmore.results.runs import Run
from xmore.store import schemas
from xmore.store.artifacts import ArtifactRef
from xmore.store.checks import check_once, read_manifest

log = logging.getLogger(__name__)

VIEWS = "views.sql"
HEADER = "-- Views over the artifacts of run "
FLAT_VIEWS = Path(__file__).with_name("views.sql")
RAW_NAMES = {  # the flat view with the stage's name adds columns
    "predictions": "raw_predictions",
    "leaks": "raw_leaks",
    "classes": "raw_classes",
    "ranks": "raw_ranks",
}


STAGES = {  # of which a run has a view
    "queries": schemas.QUERIES,
    "classes": schemas.CLASSES,
    "rejected": schemas.REJECTED,
    "query_embeddings": schemas.query_embeddings(1),
    "view_embeddings": schemas.view_embeddings(1),
    "candidates": schemas.CANDIDATES,
    "leaks": schemas.LEAKS,
    "captions": schemas.CAPTIONS,
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
LAST = ("metrics", "comparisons", "retrieval_metrics", "retrieval_comparisons")  # of a dataset
OF_ALL = ("comparisons", "retrieval_comparisons")  # of all datasets of a run, which the rows name
WITH_MODEL = (
    "query_embeddings",
    "view_embeddings",
    "candidates",
    "captions",
    "scores",
    "method_scores",
    "ranks",
)
WITH_PROMPTS = ("classes", "scores", "method_scores", "predictions", "metrics")


def write_views(run: Run) -> Path:
    """Write `<run>/views.sql`: a view per stage, then the flat views of our own views.sql.

    Its first line has the sha256 of the others.
    """
    path, text = run.path / VIEWS, views_of(run)
    write_whole(path, f"-- {digest_text(text)}\n{text}".encode())
    return path


def are_whole(path: Path) -> bool:
    """Return whether a views.sql is as it was written; older ones have no checksum."""
    text = path.read_bytes()
    first, _, rest = text.partition(b"\n")
    return text.startswith(HEADER.encode()) or first == b"-- " + sha256(rest).hexdigest().encode()


def are_of_here(run: Run) -> bool:
    """Return whether the run's views.sql names the folder in which the run lies now.

    That of a copied folder reads the original, as long as it is there.
    """
    try:
        return _costs_view(run.path) in (run.path / VIEWS).read_text("utf-8")
    except OSError:
        return False


def open_views(run: Run) -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB with the run's views; it can read only the results folder.

    Raises RunError if the run has no results yet, or if an artifact is damaged or absent.
    """
    if not any(ref.stage in ("metrics", "retrieval_metrics") for ref in run.artifacts):
        raise RunError(f"run {run.name} is {run.status} and has no results yet.")
    for ref in filter(is_removed, run.artifacts):
        what = "run %s: the %s of %s were removed and are left out. Its benchmark makes them again"
        log.warning(what, run.name, ref.stage, ref.dataset)
    there = sorted({ref.path for ref in run.artifacts if not is_absent(ref)})
    for path in track(there, "checking", "artifact"):
        problems = check_once(Path(path))
        if problems:
            raise RunError(
                f"run {run.name}: an artifact is damaged or gone ({problems[0]}). "
                f"See `xmore verify {run.name}`."
            )
    connection = duckdb.connect()
    connection.execute("set autoinstall_known_extensions = false")
    places = [run.results, *map(Path, dict.fromkeys(ref.path for ref in run.artifacts)), run.path]
    behind = [real(place) for place in places]  # its folders may be links to another disk
    behind.append(real(run.path.parent))
    connection.execute(allow_only(dict.fromkeys([run.results, *behind]), "allowed_directories"))
    try:
        connection.execute(views_of(run))
    except (duckdb.Error, ArtifactError) as error:
        if isinstance(error, duckdb.OutOfMemoryException) or is_shortage(error):
            raise
        raise RunError(
            f"run {run.name}: an artifact is damaged or gone ({str(error).splitlines()[0]}). "
            f"See `xmore verify {run.name}`."
        ) from error
    connection.execute("set lock_configuration = true")
    return connection


def check_query(query: str) -> None:
    """Run a query over the views of a run without rows. Raises duckdb.Error if it fails there.

    Whether it may read other files, only a run can say.
    """
    with tempfile.TemporaryDirectory() as place, duckdb.connect() as connection:
        run = Path(place) / "run"
        run.mkdir()
        (run / "run.json").write_text('{"costs": []}')
        connection.execute(allow_only([real(run.parent)], "allowed_directories"))
        for stage in STAGES:
            connection.register(RAW_NAMES.get(stage, stage), _columns(stage).empty_table())
        connection.execute(flat_views(run))
        connection.execute("set lock_configuration = true")
        with suppress(duckdb.IOException, duckdb.PermissionException):
            connection.execute(query).fetchall()


def views_of(run: Run) -> str:
    """Return the SQL of `<run>/views.sql`, over complete datasets. Raises ArtifactError."""
    complete = {ref.dataset for ref in run.artifacts if ref.stage in LAST}
    by_stage = defaultdict(list)
    for record in run.artifacts:
        if record.dataset in complete:
            by_stage[record.stage].append(record)
    header = (
        f"{HEADER}{run.name}. Open with: duckdb -init views.sql\n"
        "-- Its paths are absolute. After the results folder was moved or copied:\n"
        f"-- xmore sql {run.name} --write-views --results FOLDER\n"
    )
    stages = [_stage_view(stage, records) for stage, records in by_stage.items()]
    stages += [_empty_view(stage) for stage in STAGES if stage not in by_stage]
    sets = list(dict.fromkeys(ref.prompt_set for ref in run.artifacts if ref.stage == "classes"))
    return "\n".join([header, *stages, flat_views(run.path, run.config.get("limit"), sets)])


def flat_views(run: Path, limit: int | None = None, prompt_sets: Sequence[str] = ("",)) -> str:
    """Return the SQL of all views that build on the stages' views, for the run in folder `run`."""
    return "\n".join(
        [
            _place_macros(prompt_sets),
            _trial_macro(limit),
            _costs_view(run),
            _runs_view(run.parent),
            FLAT_VIEWS.read_text("utf-8"),
        ]
    )


def _place_macros(prompt_sets: Sequence[str]) -> str:
    """Return macros that sort methods, adjustments and the run's prompt sets.

    Ours are in the order of their registries. What is in none, such as a method from outside,
    comes last; null, for no adjustment, is null.
    """
    return "\n".join(
        f"create or replace macro {kind}_place({kind}) as if({kind} is null, null, "
        f"coalesce(list_position([{quote_all(known)}], {kind}), {len(known) + 1}));"
        for kind, known in (
            ("method", METHODS),
            ("adjustment", ADJUSTMENTS),
            ("set", prompt_sets),
        )
    )


def _trial_macro(limit: int | None) -> str:
    """Return a macro of the run's `limit`, by which its leaderboard is known as a trial."""
    value = "null" if limit is None else str(int(limit))
    return f"create or replace macro trial_limit() as {value}::integer;\n"


def _costs_view(run: Path) -> str:
    """Return the SQL of the view `costs`, which reads run.json; it is empty for older runs."""
    columns = (
        "dataset varchar, model varchar, method varchar, m integer, prompt_set varchar, "
        "seconds_per_image double, peak_memory_mb double"
    )
    return (
        "-- The cost of all stages behind a method's predictions, when they were built; null if\n"
        "-- no run has recorded it. Peak memory is the process', the maximum over the stages.\n"
        "create or replace view costs as\n"
        "  select dataset, model, method, m, coalesce(prompt_set, '') as prompt_set,\n"
        "         seconds_per_image, peak_memory_mb\n"
        "  from (select unnest(costs, recursive := true)\n"
        f"  from read_json({quote_files([run / 'run.json'])}, "
        f"columns = {{costs: 'struct({columns})[]'}}));\n"
    )


def _runs_view(folder: Path) -> str:
    """Return the SQL of the view `runs`, which reads the files of all runs in `folder`."""
    files = quote(f"{as_pattern(folder)}/*/run.json")
    return (
        "-- All runs of this results folder, including unfinished ones.\n"
        "create or replace view runs as\n"
        "  select parse_path(filename)[-2] as run, config->>'name' as name, started, finished,\n"
        "         seconds, error, snapshot->>'name' as snapshot, config, versions\n"
        f"  from read_json({files}, filename = true, columns = {{started: 'timestamptz', "
        "finished: 'timestamptz', seconds: 'double', error: 'varchar', snapshot: 'json', "
        "config: 'json', versions: 'json'});\n"
    )


def _stage_view(stage: str, records: list[ArtifactRef]) -> str:
    selects = "\n  union all by name\n".join(_select(stage, record) for record in records)
    return _create(stage, selects)


def _empty_view(stage: str) -> str:
    return _create(stage, f"  select {_nulls(_columns(stage))} where false")


def _columns(stage: str) -> pa.Schema:
    """Return the columns of a stage's view."""
    added = [] if stage in OF_ALL else [("dataset", pa.string())]
    added += [("model", pa.string())] if stage in WITH_MODEL else []
    added += [("m", pa.int32())] if stage == "scores" else []
    if stage == "view_embeddings":
        added += [("augmix", pa.bool_()), ("view_count", pa.int32())]
    added += [("prompt_set", pa.string())] if stage in WITH_PROMPTS else []
    return pa.schema([*added, *STAGES[stage]])


def _nulls(schema: pa.Schema) -> str:
    return ", ".join(f"null::{_sql_type(field.type)} as {field.name}" for field in schema)


def _sql_type(kind: pa.DataType) -> str:
    names = {pa.int64(): "bigint", pa.float32(): "float", pa.float64(): "double"}
    names |= {pa.int32(): "integer", pa.string(): "varchar", pa.bool_(): "boolean"}
    return names[kind] if kind in names else f"{_sql_type(kind.value_type)}[]"


def _create(stage: str, select: str) -> str:
    return f"create or replace view {RAW_NAMES.get(stage, stage)} as\n{select};\n"


def _select(stage: str, record: ArtifactRef) -> str:
    path = Path(record.path)
    if is_absent(record):
        return f"  select {_nulls(_columns(stage))} where false"
    model = f"{quote(record.model)} as model, " if stage in WITH_MODEL and record.model else ""
    files = quote_files(path / part["file"] for part in read_manifest(path)["parts"])
    m = ""
    if stage == "scores":
        of_m = read_manifest(path)["params"].get("m")  # None: of images alone
        m = f"{'null' if of_m is None else of_m}::integer as m, "
    if stage == "view_embeddings":  # several methods may read several sets
        params = read_manifest(path)["params"]
        m = f"{params['augmix']} as augmix, {params['count']}::integer as view_count, "
    if stage in WITH_PROMPTS:
        m += f"{quote(record.prompt_set)} as prompt_set, "
    dataset = "" if stage in OF_ALL else f"{quote(record.dataset)} as dataset, "
    last = ""
    if stage == "comparisons" and "prompt_sets" not in read_manifest(path)["params"]:
        last = ", '' as prompt_set, '' as baseline_prompt_set"
    source = f"read_parquet([{files}], hive_partitioning = false)"
    return f"  select {dataset}{model}{m}*{last} from {source}"
