"""Methods from outside: loaded from a file or a package; what is wrong with one is one line."""

import pickle
import sys

import numpy as np
import pytest

from xmore.files.errors import ConfigError, MethodError, XmoreError
from xmore.methods import outside
from xmore.methods.base import MethodRequest, Scores, Stream, Variant
from xmore.methods.guard import check_scores
from xmore.methods.registry import METHODS, MethodRef, known_methods, method_refs
from xmore.methods.source import method_key, source_of

MINE = """import numpy as np
from xmore.methods.base import Method, Scorer
class Mine(Method):
    name = "mine"
    needs = frozenset({"image_scores"})
    def class_scores(self, scores, weights):
        return scores.image
METHOD = Mine()
"""
SCORES = Scores(np.full((3, 4), 0.25, np.float32), np.full((3, 4), np.nan, np.float32))
STREAM = Stream(np.zeros(3), np.zeros(3))


@pytest.fixture
def load(tmp_path):
    """Loads a file of the given text -> the method."""

    def write_and_load(text: str = MINE, file: str = "mine.py"):
        path = tmp_path / file
        path.write_text(text)
        (ref,) = method_refs([str(path)])
        return ref.method

    return write_and_load


def one_line(raised) -> str:
    text = str(raised.value)
    assert "\n" not in text and isinstance(raised.value, XmoreError)
    return text


NO_METHODS = {
    "a syntax error": ("import numpy\ndef x(:\n", ["mine.py, line 2", "SyntaxError"]),
    "no METHOD": ("import numpy\n", ["mine.py: has no METHOD"]),
    "a class": (MINE.replace("Mine()", "Mine"), ["METHOD is a class", "METHOD = Mine()"]),
    "a number": ("METHOD = 3\n", ["METHOD is a int", "xmore.methods.base.Method"]),
    "an error at import": (
        "x = 1\ny = 1 / 0\n",
        ["mine.py, line 2, in its import", "ZeroDivision"],
    ),
    "an end at import": ("raise SystemExit(3)\n", ["mine.py, line 1, in its import"]),
    "a module that is not there": ("import no_such\n", ["line 1", "No module named 'no_such'"]),
    "a file beside it": ("import beside\n", ["line 1", "No module named 'beside'"]),
    "no text at all": ("\0", ["mine.py", "null bytes"]),
    "an abstract one": (
        MINE.replace("class_scores", "other"),
        ["mine.py, line 8", "abstract method", "class_scores"],
    ),
    "no name": (MINE.replace("name =", "nome ="), ["`name` must be letters", "got None"]),
    "an odd name": (MINE.replace('"mine"', '"my; drop"'), ["`name` must be letters", "my; drop"]),
    "our name": (MINE.replace('"mine"', '"xmore"'), ["mine.py", "`xmore`, is one of ours"]),
    "no needs": (MINE.replace("needs =", "reads ="), ["`needs` must be a set", "got None"]),
    "a need of none": (
        MINE.replace("image_scores", "labels"),
        ["`needs`", "labels"],
    ),
    "a need of the other kind": (
        MINE.replace("image_scores", "pixels"),
        ["`needs`", "image_scores, text_scores"],
    ),
    "a half version": (MINE.replace("    needs", "    version = 1.5\n    needs"), ["1.5"]),
}


@pytest.mark.parametrize("why", NO_METHODS)
def test_what_is_no_method_is_refused_in_one_line(load, tmp_path, why):
    (tmp_path / "beside.py").write_text("")
    text, says = NO_METHODS[why]
    with pytest.raises(XmoreError) as raised:
        load(text)
    told = one_line(raised)
    assert told.startswith(str(tmp_path)) and [part for part in says if part not in told] == []


def test_a_file_that_is_not_there_or_has_a_twin(load, tmp_path):
    with pytest.raises(ConfigError, match=r"none\.py: No such file or directory\. `methods` names"):
        method_refs([str(tmp_path / "none.py")])
    with pytest.raises(ConfigError, match="Is a directory"):
        (tmp_path / "folder.py").mkdir()
        method_refs([str(tmp_path / "folder.py")])
    load(), load(MINE, "other.py")
    with pytest.raises(ConfigError, match=r"mine\.py and .*other\.py are both named `mine`"):
        method_refs([str(tmp_path / "mine.py"), str(tmp_path / "other.py")])


SCORER = """from xmore.methods.base import Scorer
import numpy as np
class Mine(Scorer):
    name = "mine"
    needs = {"query_embeddings"}
    def identity(self, request):
        return {}
    def prepare(self, context):
        return lambda shard: 1 / 0
METHOD = Mine()
"""


def with_line(line: str) -> str:
    return MINE.replace("        return scores.image\n", f"        {line}\n")


CALLS = {  # the module, a call, and what is said of it
    "an exception": (
        with_line("return scores.image @ scores.image"),
        lambda m: m.class_scores(SCORES, None),
        ["mine.py, line 7, in class_scores: ValueError: matmul"],
    ),
    "settings that are none": (
        MINE.replace("    def", "    def settings(self, request, variant):\n"
                     "        return {'a': 1}\n    def"),
        lambda m: m.settings(MethodRequest("x", 1, 1), Variant()),
        ["mine.py, line 6, in settings: must return a dict of Setting", "{'a': 1}"],
    ),
    "no variant": (
        MINE.replace("    def", "    def variants(self, adjustments, seeds):\n"
                     "        return []\n    def"),
        lambda m: m.variants([], []),
        ["mine.py, line 6, in variants: must return a list of Variant"],
    ),
    "weights of another length": (
        MINE.replace("    def", "    def weights(self, stream, variant):\n"
                     "        return np.ones(2)\n    def"),
        lambda m: m.weights(STREAM, Variant()),
        ["mine.py, line 6, in weights: must return Weights of arrays (3,), or None"],
    ),
    "an identity without JSON": (
        SCORER.replace("return {}", "return {'x': np.ones(2)}"),
        lambda m: m.identity(None),
        ["mine.py", "in identity: TypeError", "not JSON serializable"],
    ),
    "nothing prepared": (
        SCORER.replace("lambda shard: 1 / 0", "None"),
        lambda m: m.prepare(None),
        ["mine.py, line 8, in prepare: must return a function, got NoneType"],
    ),
    "an exception in what was prepared": (
        SCORER,
        lambda m: m.prepare(None)(None),
        ["mine.py, line 9, in what `prepare` returns: ZeroDivisionError"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", CALLS)
def test_an_error_in_a_method_is_one_line_with_its_place(load, why):
    text, call, says = CALLS[why]
    method = load(text)
    with pytest.raises(MethodError) as raised:
        call(method)
    told = one_line(raised)
    assert [part for part in says if part not in told] == [], told


def test_a_shortage_is_not_the_methods_fault_and_ours_are_told_as_before(load):
    method = load(with_line("raise MemoryError"))
    with pytest.raises(MemoryError):
        method.class_scores(SCORES, None)
    mine = load(with_line("from xmore.files.errors import ConfigError; raise ConfigError('so')"))
    with pytest.raises(ConfigError, match=r"^so$"):
        mine.class_scores(SCORES, None)


GOOD, ALL = np.full((3, 4), 0.25), np.ones(3, bool)


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        (GOOD[:2], "of shape (3, 4), got (2, 4)"),
        (GOOD[0], "got (4,)"),
        ([[0.25] * 4] * 3, "got list"),
        (None, "got NoneType"),
        (GOOD.astype(str), "must return numbers"),
        (GOOD + 1j, "must return numbers"),
        (np.where(np.eye(3, 4) > 0, np.nan, GOOD), "NaN for 3 of 3 queries"),
        (np.where([[True], [False], [False]], np.nan, GOOD), "NaN for 1 of 3 queries"),
        (GOOD * 100, "between 0 and 1, got 25"),
        (GOOD - 1, "got -0.75"),
        (GOOD * np.inf, "got inf"),
    ],
)
def test_scores_that_no_method_may_return(load, scores, says):
    with pytest.raises(MethodError) as raised:
        check_scores(load(), scores, (3, 4), ALL)
    told = one_line(raised)
    assert "mine.py, line 6, in class_scores: " in told and says in told


def test_scores_that_a_method_may_return():
    empty = np.where([[True], [False], [False]], np.nan, GOOD)
    check_scores(METHODS["clip"], empty, (3, 4), np.array([False, True, True]))
    check_scores(METHODS["clip"], GOOD.astype(np.float16), (3, 4), ALL)
    check_scores(METHODS["clip"], np.eye(3, 4, dtype=int), (3, 4), ALL)
    check_scores(METHODS["clip"], GOOD * 4 + 1e-12, (3, 4), ALL)


def test_the_bytes_are_the_identity_unless_there_is_a_version(load, tmp_path):
    first, edited = load(), load(MINE + "# edited\n")
    assert first is not edited and first is load()
    assert method_key(first) == method_key(load()) != method_key(edited)
    assert next(iter(source_of(first))) == "mine.py" and "xmore/methods/base.py" in source_of(first)
    with_version = MINE.replace("    needs", "    version = 3\n    needs")
    assert method_key(load(with_version)) == ["mine", 3, "mine.py"]
    # Another file's method of one name and version is another method.
    assert method_key(load(with_version, "theirs.py")) == ["mine", 3, "theirs.py"]
    # An own method under another name: its file counts, too.
    again = load("from xmore.methods.equal import Equal\nMETHOD = Equal()\nMETHOD.name = 'same'\n")
    assert {"mine.py", "xmore/methods/equal.py"} <= source_of(again).keys()


def test_a_ref_is_sent_to_a_worker_which_loads_the_same_bytes(load, tmp_path, warm):
    load()
    (ref,) = method_refs([str(tmp_path / "mine.py")])
    code = (
        "import pickle, sys; ref = pickle.loads(bytes.fromhex(sys.argv[1])); "
        "print(ref, ref.method.origin)"
    )
    code_, said, error = warm.code(code, pickle.dumps(ref).hex()).end()
    assert (code_, said.strip()) == (0, f"mine {tmp_path / 'mine.py'}"), error
    (tmp_path / "mine.py").write_text(MINE + "# edited\n")
    assert ref.method.name == "mine", "a process keeps what it has loaded"
    code_, said, error = warm.code(code, pickle.dumps(ref).hex()).end()
    assert code_ != 0 and "was changed while the run read it. Start the run again." in error


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package with a method `theirs`, in two modules."""
    folder = tmp_path / "their_methods"
    folder.mkdir()
    for name in [*sys.modules]:
        if name.startswith("their_methods"):
            monkeypatch.delitem(sys.modules, name)
    theirs = MINE.replace('"mine"', '"theirs"') + "from their_methods import arithmetic\n"
    (folder / "__init__.py").write_text("")
    (folder / "method.py").write_text(theirs + "from . import formula\n")
    (folder / "arithmetic.py").write_text("ONE = 1\n")
    (folder / "formula.py").write_text("from .arithmetic import ONE\n")
    (folder / "other.py").write_text("")
    facts = tmp_path / "their_methods-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their_methods\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[xmore.methods]\ntheirs = their_methods.method:METHOD\n"
        "clip = their_methods.method:METHOD\nwrong = their_methods.method:METHOD\n"
        "none = no_such_package:METHOD\n"
        "broken = their_methods.other:METHOD\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outside.from_package.cache_clear()
    yield folder
    outside.from_package.cache_clear()


def test_a_method_of_an_installed_package(package):
    (ref,) = method_refs(["theirs"])
    assert ref == MethodRef("theirs") and ref.method.name == str(ref) == "theirs"
    ours = {name for name in source_of(ref.method) if name.startswith("their_methods")}
    assert ours == {
        f"their_methods/{n}.py" for n in ("__init__", "method", "arithmetic", "formula")
    }
    assert method_key(ref.method)[2] == "their_methods.method"
    assert list(known_methods())[-1] != "clip" and "theirs" in known_methods()
    assert method_refs(["clip"])[0].method is METHODS["clip"], "ours stay ours"


def test_a_package_whose_method_is_wrong(package):
    for name, says in {
        "wrong": "its name is `theirs`, but its entry point's is `wrong`",
        "none": "`none` is in no_such_package, which is not installed",
        "broken": "has no attribute 'METHOD'",
        "gone": "no `gone`: the package that had it is not installed",
    }.items():
        with pytest.raises(XmoreError) as raised:
            method_refs([name])
        assert says in one_line(raised)


def test_the_order_is_one_and_what_is_from_outside_comes_last(load, tmp_path):
    load(MINE.replace('"mine"', '"a-mine"'), "z.py"), load(MINE, "a.py")
    files = [str(tmp_path / "a.py"), str(tmp_path / "z.py")]
    asked = [*files, "tpt", "xmore", "caption-ensemble", "clip", "equal"]
    found = [ref.method.name for ref in method_refs(asked)]
    assert found == ["clip", "caption-ensemble", "equal", "xmore", "tpt", "a-mine", "mine"]
