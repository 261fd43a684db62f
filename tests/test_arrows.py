"""Imports point one way, between rooms and within them; and nobody imports in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "index_build", "xmore")
KNOW_PREFECT = {"flows", "tasks"}

# A room, and the rooms that it may import from; any may import from its own. A module is in the
# room with the longest name that begins its own.
XMORE = {
    "xmore.files": "",
    "xmore.images": "files",
    "xmore.models": "files images",
    "xmore.statistics": "files",
    "xmore.store": "files models",
    "xmore.datasets": "files images models",
    "xmore.memory": "files images models store datasets",
    "xmore.methods": "files models datasets store statistics memory",
    "xmore.methods.coder": "files models datasets store statistics memory methods",
    "xmore.methods.reco": "files models datasets store statistics memory methods",
    "xmore.methods.tda": "files models datasets store statistics memory methods",
    # It alone knows all methods; they do not know it.
    "xmore.methods.registry": "files methods methods.coder methods.reco methods.tda",
    "xmore.config": "files models methods methods.registry methods.reco",
    "xmore.results": "files datasets store statistics memory methods methods.registry config",
    "xmore.report": "files images datasets store statistics memory methods results",
}
ANY_OF_XMORE = set(XMORE)
ARROWS = {room: {f"xmore.{name}" for name in below.split()} for room, below in XMORE.items()} | {
    "index_build.base": ANY_OF_XMORE,
    "index_build.sources": {"index_build.base"} | ANY_OF_XMORE,
    "index_build.download": {"index_build.base"} | ANY_OF_XMORE,
    "index_build": {"index_build.base", "index_build.sources", "index_build.download"}
    | ANY_OF_XMORE,
    "index_build.index": {"index_build", "index_build.base"} | ANY_OF_XMORE,
    "index_build.upkeep": {
        "index_build",
        "index_build.base",
        "index_build.sources",
        "index_build.download",
    }
    | ANY_OF_XMORE,
}
ANY_OF_INDEX_BUILD = {room for room in ARROWS if room.startswith("index_build")}
ARROWS |= {
    "tasks": ANY_OF_INDEX_BUILD | ANY_OF_XMORE,
    "flows": {"tasks"} | ANY_OF_INDEX_BUILD | ANY_OF_XMORE,
    "flows.cli.terminal": {"flows"} | ANY_OF_INDEX_BUILD | ANY_OF_XMORE,
    "flows.cli": {"flows", "flows.cli.terminal"} | ANY_OF_INDEX_BUILD | ANY_OF_XMORE,
}


# What a command that only looks does not wait for.
SLOW = {"torch", "open_clip", "transformers", "sklearn", "prefect", "aiohttp", "scipy"}


def modules(root: Path) -> dict[str, Path]:
    """Every module by its name."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    }


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """What a module imports, wherever in it: modules of ours, and others' packages."""
    return imported_by(ast.parse(path.read_text()), path, known)


def imported_by(tree: ast.Module, path: Path, known: dict[str, Path]) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: a relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (whole & known.keys()) or {node.module}
    return {name if name.split(".")[0] in PACKAGES else name.split(".")[0] for name in names}


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: imported(path, known) - {name} for name, path in known.items()}


def loaded(module: str, first: dict[str, set[str]]) -> set[str]:
    """All that is imported when a module is; `first` has what each imports at once."""
    found, rest = set(), {module}
    while rest:
        name = rest.pop()
        found.add(name)
        rest |= first.get(name, set()) - found
    return found


def imported_first(path: Path, known: dict[str, Path]) -> set[str]:
    """What a module imports outside functions and `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)
    ]
    return imported_by(tree, path, known)


def room_of(module: str) -> str:
    return max(
        (room for room in ARROWS if f"{module}.".startswith(f"{room}.")), key=len, default=""
    )


def wrong_arrows(root: Path) -> Iterator[str]:
    """Imports from a room that the table does not allow."""
    found = graph(root)
    found.pop("xmore", None)  # what `import xmore` offers is loaded when it is used
    for module, names in found.items():
        here = room_of(module)
        if not here:
            yield f"{module}: is in no room"
        for name in sorted(names):
            there = room_of(name)
            if there and there != here and there not in ARROWS[here]:
                yield f"{module} -> {name}"
            if name == "prefect" and module.split(".")[0] not in KNOW_PREFECT:
                yield f"{module} -> prefect"


def circle(root: Path) -> list[str]:
    """Some modules that import each other in a circle; none if there is no circle."""
    try:
        TopologicalSorter(graph(root)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_import_points_against_the_arrows():
    assert list(wrong_arrows(ROOT)) == []


def test_no_modules_import_each_other_in_a_circle():
    assert circle(ROOT) == []


def test_commands_that_look_load_nothing_slow():
    known = modules(ROOT)
    first = {name: imported_first(path, known) for name, path in known.items()}
    looking = {name for name in known if name.startswith("flows.cli.")}
    looking.remove("flows.cli.terminal.reco")  # of a command that trains
    slow = {name: sorted(loaded(name, first) & SLOW) for name in looking}
    assert {name: found for name, found in slow.items() if found} == {}
    for name in ("flows.leaks", "flows.classify"):  # no flow, no plot
        assert not loaded(name, first) & {"prefect", "matplotlib"}, name


def test_the_table_itself_points_one_way():
    TopologicalSorter(ARROWS).prepare()


def plant(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("xmore__files__x", "from xmore.images import decode"),
        ("xmore__images__x", "def late():\n    import xmore.models.spec"),
        ("xmore__statistics__x", "from xmore.results.metrics import accuracy_row"),
        ("xmore__methods__x", "from xmore.methods.registry import METHODS"),
        ("xmore__methods__coder__x", "from xmore.methods.reco import layers"),
        ("xmore__memory__x", "from xmore.config.benchmark import BenchmarkConfig"),
        ("xmore__report__x", "from tasks.stage import stage"),
        ("index_build__base__x", "from index_build import plan"),
        ("index_build__index__x", "from prefect import flow"),
        ("tasks__x", "from flows.plan import look_up"),
        ("flows__x", "from flows.cli.terminal.console import say"),
        ("flows__cli__terminal__x", "from flows.cli import doctor"),
        ("xmore__elsewhere__x", "import os"),
    ],
)
def test_a_planted_arrow_is_told(tmp_path, module, line):
    assert list(wrong_arrows(plant(tmp_path, **{module: line})))


def test_a_planted_circle_is_told(tmp_path):
    plant(tmp_path, xmore__files__a="import os", xmore__files__b="from xmore.files import a")
    assert circle(tmp_path) == []
    plant(tmp_path, xmore__files__a="def late():\n    from xmore.files.b import x")
    assert {"xmore.files.a", "xmore.files.b"} <= set(circle(tmp_path))


def test_xmore_is_imported_without_prefect(warm):
    names = [name for name in modules(ROOT) if name.startswith("xmore.")]
    before = "[sys.modules.pop(n) for n in [*sys.modules] if n.split('.')[0] == 'prefect']"
    code = f"import sys; {before}; import {', '.join(names)}; print('prefect' in sys.modules)"
    _, said, error = warm.code(code).end()
    assert said.strip() == "False", error
