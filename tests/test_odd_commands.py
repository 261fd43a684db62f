"""Commands over odd names, places, results and memories: each answers, or refuses in one line."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import CLASSES
from sharing import unsealed

from xmore.memory.snapshot import resolve_current
from xmore.results.runs import load_run

ODD = "seed=0 {a,b} 100% é e\u0301 10:00 #1 & $HOME 🐦 a::b"


def refused(answer, *says: str) -> None:
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer
    assert answer.stderr.startswith("error: ") and answer.stderr.strip().isprintable()
    assert [part for part in says if part not in answer.stderr] == [], answer.stderr


@pytest.fixture
def results(done, tmp_path) -> Path:
    """A copy of the results of `done`."""
    return shutil.copytree(done.config.results, tmp_path / "copied")


@pytest.fixture
def memory(world, tmp_path) -> Path:
    return shutil.copytree(world.root / "memory", tmp_path / "memory")


def written(folder: Path, config) -> Path:
    data = config.model_dump(mode="json", exclude_none=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(data))
    return folder / "run.yaml"


# ----- classify


LABELS = {
    "two forms of one name": ("big_cat,big cat", ["'big cat' twice"]),
    "two forms of an accent": ("caf\xe9,cafe\u0301", ["twice"]),
    "bytes that are no text": ("caf\udce9,dog", ["UTF-8"]),
    "a control character": ("a\x07b,dog", ["control character"]),
    "one": ("cat,", ["two different labels"]),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels(world, xmore, tmp_path, case):
    labels, says = LABELS[case]
    config = written(tmp_path, world.config(tmp_path / "results"))
    photo = next((world.root / "queries").rglob("*.jpg"))
    refused(xmore("classify", photo, "--labels", labels, "--config", config), *says)


FILES = {
    "numbers": (b"0: cat\n1: dog\n", ["labels.txt, line 1", "number"]),
    "JSON": (b'["cat",\n"dog"]\n', ["labels.txt, line 1", "JSON"]),
    "doubles": (b"big_cat\nbig cat\n", ["twice"]),
}


@pytest.mark.parametrize("case", FILES)
def test_files_of_labels(world, xmore, tmp_path, case):
    text, says = FILES[case]
    (tmp_path / "labels.txt").write_bytes(text)
    config = written(tmp_path, world.config(tmp_path / "results"))
    photo = next((world.root / "queries").rglob("*.jpg"))
    arguments = ["--labels-file", tmp_path / "labels.txt", "--config", config]
    refused(xmore("classify", photo, *arguments), *says)


def test_a_file_of_folders_and_names_gives_the_names(world, xmore, tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfn01\tcat\r\nn02\tbig_dog\r\n")
    config = written(tmp_path, world.config(tmp_path / "results"))
    photo = next((world.root / "queries").rglob("*.jpg"))
    arguments = ["--labels-file", tmp_path / "labels.txt", "--config", config]
    answer = xmore("classify", photo, *arguments)
    assert answer.returncode == 0 and "n01" not in answer.stdout, answer
    assert "big dog" in answer.stdout and "cat" in answer.stdout


def test_a_name_that_is_no_utf_8_is_refused_by_any_command(done, world, xmore, tmp_path):
    config = written(tmp_path, world.config(tmp_path / "results"))
    photo = next((world.root / "queries").rglob("*.jpg"))
    shutil.copy(photo, tmp_path / "caf\udce9.jpg")
    name = str(tmp_path / "caf\udce9.jpg")
    refused(xmore("classify", name, "--labels", "cat,dog", "--config", config), "UTF-8", "caf")
    where = ["--results", done.config.results]
    refused(xmore("explain", "latest", "caf\udce9.jpg", *where), "UTF-8", "caf")
    refused(xmore("sql", "latest", "select 'caf\udce9'", *where), "UTF-8", "caf")


def test_a_failed_run_has_no_range_of_confidences(results, world, xmore):
    run = load_run(results, "latest")
    facts = unsealed(json.loads((run.path / "run.json").read_text()))
    facts |= {"finished": None, "error": "DatasetError: x", "artifacts": []}
    (run.path / "run.json").write_text(json.dumps(facts))
    photo = next((world.root / "queries").rglob("*.jpg"))
    arguments = ["--labels", "cat,dog", "--run", run.name, "--results", results]
    refused(xmore("classify", photo, *arguments), "is failed and has no results")


# ----- queries and outputs


@pytest.mark.parametrize("target", [".", "/"])
@pytest.mark.parametrize(
    "command",
    [
        ["explain", "latest", "0", "--html"],
        ["leaks", "latest", "--html"],
        ["sql", "latest", "select 1", "--format", "csv", "--output"],
    ],
    ids=lambda command: command[0],
)
def test_a_folder_is_no_file_to_write(done, xmore, command, target):
    refused(xmore(*command, target, "--results", done.config.results), "irectory")


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "1e300"])
def test_a_time_that_is_none(done, xmore, seconds):
    answer = xmore("sql", "latest", "select 1", f"--timeout={seconds}",
                   "--results", done.config.results)  # fmt: skip
    refused(answer, "--timeout")


def test_a_query_of_other_bytes(done, xmore, monkeypatch):
    from flows.cli import main

    monkeypatch.setattr("sys.argv", ["xmore", "sql", "latest", "--results",
                                     str(done.config.results)])  # fmt: skip
    stdin = io.TextIOWrapper(io.BytesIO("select 'é'".encode("latin-1")), "utf-8")
    monkeypatch.setattr("sys.stdin", stdin)
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    with pytest.raises(SystemExit) as end:
        main.app()
    assert end.value.code == 2 and "not UTF-8" in errors.getvalue()
    assert errors.getvalue().count("\n") == 1


# ----- runs that are damaged, or of another version


SPOILED = {
    "an empty file": lambda facts: "",
    "half of it": lambda facts: json.dumps(facts)[:400],
    "a list": lambda facts: "[]",
    "without a key": lambda facts: json.dumps({k: v for k, v in facts.items() if k != "versions"}),
    "a key more": lambda facts: json.dumps(facts | {"of_another_version": 1}),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_run_that_cannot_be_read_is_named_and_stops_no_other(results, xmore, caplog, case):
    good = load_run(results, "latest")
    bad = results / "runs" / "bad-20200101-000000"
    bad.mkdir()
    facts = unsealed(json.loads((good.path / "run.json").read_text()))
    (bad / "run.json").write_text(SPOILED[case](facts))
    where = ["--results", results]
    read = case == "a key more"
    drawn = [["report", "latest"]] if case == "half of it" else []  # one page costs seconds
    for command in (["runs"], ["show", good.name], *drawn):
        caplog.clear()
        answer = xmore(*command, *where)
        assert answer.returncode == 0, answer
        if command != ["show", good.name]:  # which looks at no other
            assert (bad.name in caplog.text) != read, answer
    count = "select count(*) as n from leaderboard"
    answer = xmore("sql", good.name, count, "--format", "csv", *where)
    assert answer.returncode == 0 and answer.stdout.startswith('"n"'), answer
    if read:
        assert bad.name in xmore("runs", *where).stdout
    else:
        refused(xmore("show", bad.name, *where), bad.name, "run.json")
        answer = xmore("sql", good.name, "select run from runs", "--format", "csv", *where)
        assert good.name in answer.stdout or "run.json" in answer.stderr, answer
        assert "Traceback" not in answer.stderr


# ----- places


@pytest.mark.slow
def test_results_and_a_memory_in_an_odd_place(world, xmore, tmp_path):
    home = tmp_path / ODD / ("x" * 200)
    home.mkdir(parents=True)
    memory = world.memory_config(memory=home / "memory")
    (home / "memory.yaml").write_text(yaml.safe_dump(memory.model_dump(mode="json")))
    answer = xmore("reindex", home / "memory.yaml")
    assert answer.returncode == 0 and "240 rows" in answer.stdout, answer
    shutil.copytree(world.root / "queries", home / "queries")
    (home / "card.yaml").write_text("name: tiny\nroot: queries\n")
    config = world.config(
        home / "results", memory=home / "memory", adjustments=["none"], datasets=["card.yaml"]
    )
    path = written(home, config)
    answer = xmore("benchmark", path)
    assert answer.returncode == 0, answer
    where = ["--results", home / "results"]
    for command in (
        ["show", "latest"],
        ["report", "latest"],
        ["leaks", "latest", "--html", home / "leaks.html"],
        ["explain", "latest", "0", "--html", home / "query.html"],
        ["compare", "latest", "latest"],
        ["verify", "latest"],
        ["sql", "latest", "select run, name, seconds, started from runs"],
        ["sql", "latest", "select * from costs"],
    ):
        answer = xmore(*command, *where)
        assert answer.returncode == 0, answer
    name = resolve_current(home / "memory")
    for command in (
        ["list", home / "memory"],
        ["show", home / "memory"],
        ["diff", home / "memory", name, name],
        ["verify", home / "memory"],
        ["plan", home / "memory.yaml"],
    ):
        answer = xmore("memory", *command)
        assert answer.returncode == 0, answer
    answer = xmore("sql", "latest", "select count(*) as n from runs where name = 'tiny'",
                   "--format", "csv", *where)  # fmt: skip
    assert answer.stdout.splitlines()[1] == "1", answer


@pytest.mark.slow
def test_results_behind_links_and_relative(results, xmore, tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("store", "runs"):
        (results / name).rename(tmp_path / "disk" / name)
        (results / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "link").symlink_to(results)
    (tmp_path / "below").mkdir()
    for place, cwd in (
        (results, tmp_path),
        ("link", tmp_path),
        ("../copied", tmp_path / "below"),
        (".", results),
    ):
        for command in (
            ["runs"],
            ["show", "latest"],
            ["sql", "latest", "from leaderboard"],
            ["sql", "latest", "from runs"],
            ["report", "latest"],
            ["explain", "latest", "0"],
            ["compare", "latest", "latest"],
            ["leaks", "latest"],
            ["verify", "latest"],
        ):
            answer = xmore(*command, "--results", place, cwd=cwd)
            assert answer.returncode == 0, (place, answer)


def test_the_old_place_of_moved_results_is_not_made_again(results, world, xmore, tmp_path):
    run = load_run(results, "latest")
    facts = unsealed(json.loads((run.path / "run.json").read_text()))
    facts["config"]["results"] = str(tmp_path / "old" / "place")
    (run.path / "run.json").write_text(json.dumps(facts))
    for command in (["report", "latest"], ["explain", "latest", "0", "--html", tmp_path / "a.html"],
                    ["leaks", "latest", "--html", tmp_path / "b.html"]):  # fmt: skip
        answer = xmore(*command, "--results", results)
        assert answer.returncode == 0, answer
    assert not (tmp_path / "old").exists()


def test_results_that_are_a_file(tmp_path, xmore):
    (tmp_path / "results").write_text("x")
    for command in (["show", "latest"], ["sql", "latest", "select 1"], ["leaks", "latest"]):
        refused(xmore(*command, "--results", tmp_path / "results"), "no runs")


# ----- memories


def change_manifest(memory: Path, change) -> str:
    name = resolve_current(memory)
    path = memory / "snapshots" / name / "manifest.json"
    path.write_text(json.dumps(change(unsealed(json.loads(path.read_text())))))
    return name


@pytest.mark.parametrize(
    "key", ["asked", "failures", "sources", "filtered", "hosts", "retryable", "index.measured",
            "index.bytes", "index.how", "index.parameters"],
)  # fmt: skip
def test_a_manifest_of_another_version(memory, xmore, key):
    def without(facts: dict) -> dict:
        first, _, last = key.partition(".")
        (facts[first] if last else facts).pop(last or first)
        return facts

    name = change_manifest(memory, without)
    for command in (["list", memory], ["show", memory], ["diff", memory, name, name]):
        answer = xmore("memory", *command)
        assert answer.returncode == 0 or answer.stderr.count("\n") == 1, answer
        assert "Traceback" not in answer.stderr
        if answer.returncode:
            refused(answer, "manifest.json", key)


def test_a_snapshot_without_an_index(memory, xmore):
    name = change_manifest(memory, lambda facts: facts | {"index": None})
    for command in (["list", memory], ["show", memory], ["diff", memory, name, name]):
        answer = xmore("memory", *command)
        assert answer.returncode == 0, answer


@pytest.mark.parametrize("command", ["list", "show", "verify", "rollback", "gc"])
def test_what_is_no_memory(world, xmore, tmp_path, command):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for place in ("file", "empty", "nowhere"):
        refused(xmore("memory", command, tmp_path / place), str(tmp_path / place))


def test_a_folder_of_clip_retrieval_is_named_as_such(memory, xmore, tmp_path):
    adopted = memory / "snapshots" / resolve_current(memory)
    (adopted / "manifest.json").unlink()
    for command in ("list", "show", "verify"):
        refused(xmore("memory", command, adopted), "clip-retrieval")


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe\n", b"3\n", b'{"event": "published"}\n', b'{"event": "published", "snapshot": "x"',
     b'{"event": "published", "snapshot": "x", "seconds": null}\n', b"[" * 100_000],
)  # fmt: skip
def test_a_history_that_is_damaged(memory, world, xmore, tmp_path, text):
    (memory / "history.jsonl").write_bytes(text)
    config = world.memory_config(memory=memory).model_dump(mode="json", exclude_none=True)
    (tmp_path / "memory.yaml").write_text(yaml.safe_dump(config))
    for command in (["list", memory], ["plan", tmp_path / "memory.yaml"]):
        answer = xmore("memory", *command)
        if answer.returncode:
            refused(answer, "history.jsonl")


# ----- datasets that change


@pytest.mark.slow
def test_an_image_replaced_at_the_same_size_and_time_is_listed_again(world, xmore, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(world.root / "queries", root)
    (tmp_path / "card.yaml").write_text("name: changing\nroot: images\n")
    changes = {"datasets": ["card.yaml"], "adjustments": ["none"], "methods": ["clip"]}
    config = written(tmp_path, world.config(tmp_path / "results", **changes))
    assert xmore("benchmark", config).returncode == 0
    for folder in ("query_embeddings", "candidates"):
        shutil.rmtree(tmp_path / "results" / "store" / folder)
    path = next(root.rglob("*.jpg"))
    before, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-3] + b"x" + data[-2:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    refused(xmore("benchmark", config), path.name, "changed since it was listed")
    answer = xmore("benchmark", config)
    assert answer.returncode == 0, answer


def test_images_that_are_gone_are_left_out_of_pages(results, world, xmore, tmp_path):
    run = load_run(results, "latest")
    facts = unsealed(json.loads((run.path / "run.json").read_text()))
    facts["config"]["datasets"] = [str(tmp_path / "gone.yaml")]
    facts["snapshot"]["memory"] = str(tmp_path / "gone")
    (run.path / "run.json").write_text(json.dumps(facts))
    where = ["--results", results]
    for command in (["report", "latest"], ["explain", "latest", "0", "--html", tmp_path / "a.html"],
                    ["show", "latest"], ["runs"], ["compare", "latest", "latest"]):  # fmt: skip
        answer = xmore(*command, *where)
        assert answer.returncode == 0, answer


def test_folders_that_look_like_numbers_or_ids_are_noted(world, xmore, tmp_path):
    photo = next((world.root / "queries").rglob("*.jpg"))
    for kind, names in {
        "numbered": ("001.Black_footed_Albatross", "002.Laysan_Albatross"),
        "ids": ("n01440764", "n01443537"),
        "digits": ("0", "1"),
        "names": ("3d printer", "cat"),
    }.items():
        for name in names:
            (tmp_path / kind / name).mkdir(parents=True)
            shutil.copy(photo, tmp_path / kind / name)
        (tmp_path / f"{kind}.yaml").write_text(f"name: {kind}\nroot: {kind}\n")
        answer = xmore("datasets", "check", tmp_path / f"{kind}.yaml")
        noted = [line for line in answer.stdout.splitlines() if "look like" in line]
        assert len(noted) == (kind != "names"), answer
        assert all(names[0].replace("_", " ") in line for line in noted)


# ----- configs


NUMBERS = {
    "a seed beyond 64 bits": {"seeds": [2**63]},
    "a seed beyond 32 bits": {"seeds": [2**31]},
    "more candidates than rows": {"retrieval": {"candidates": 10**12, "captions": [8]}},
    "more captions than fit": {"retrieval": {"candidates": 2**33, "captions": [2**32]}},
    "a long batch": {"execution": {"workers": 1, "batch_size": 10**30, "part_rows": 10**30}},
    "a threshold of nothing": {"leaks": {"threshold": float("nan")}},
    "a share of nothing": {"max_rejected": float("nan")},
}


@pytest.mark.parametrize("case", NUMBERS)
def test_large_numbers(world, xmore, tmp_path, case):
    data = world.config(tmp_path / "results").model_dump(mode="json", exclude_none=True)
    data |= {"methods": ["clip", "xmore"], "adjustments": ["minmax"], **NUMBERS[case]}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data).replace(".nan", "nan"))
    answer = xmore("benchmark", tmp_path / "run.yaml")
    if answer.returncode:
        assert not list((tmp_path / "results").glob("runs/*")), answer
        refused(answer, "run.yaml")


SWEEPS = {
    "no values": ({"vary": {"retrieval.candidates": []}}, ["sweep.yaml", "retrieval.candidates"]),
    "a loop": ("vary: &a {seeds: [*a]}\n", ["sweep.yaml"]),
    "a key of nothing": ({"vary": {"": [1]}}, ["run.yaml, changed: unknown key"]),
    "a key of dots": ({"vary": {"..": [1]}}, ["run.yaml, changed: unknown key"]),
    "a list as base": ({"base": ["run.yaml"]}, ["`base`"]),
    "a question that fails": (
        {"vary": {}, "table": "select error(dataset) from leaderboard"},
        ["`table`", "is complete"],
    ),
    "a question that is no SQL": ({"vary": {}, "table": "from (("}, ["`table`", "syntax error"]),
    "no question": ({"vary": {}, "table": " "}, ["`table`"]),
}


@pytest.mark.parametrize("case", SWEEPS)
def test_sweeps(world, done_again, xmore, tmp_path, case):
    written(tmp_path, done_again)
    changes, says = SWEEPS[case]
    base = {"name": "s", "base": "run.yaml", "table": "from leaderboard"}
    text = yaml.safe_dump(base | (changes if isinstance(changes, dict) else {}))
    (tmp_path / "sweep.yaml").write_text(text + (changes if isinstance(changes, str) else ""))
    refused(xmore("sweep", tmp_path / "sweep.yaml"), *says)


def test_two_keys_of_one_ending_have_a_column_each(done_again, xmore, tmp_path):
    written(tmp_path, done_again)
    vary = {"roles.fine": ["lite0"], "retrieval.fine": ["direct"]}
    sweep = {"name": "s", "base": "run.yaml", "vary": vary, "table": "select 1 as n"}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    answer = xmore("sweep", tmp_path / "sweep.yaml")
    assert answer.returncode == 0, answer
    table = (done_again.results / "tables" / "s.csv").read_text().splitlines()
    assert table[0] == "retrieval.fine,roles.fine,n,run"
    assert table[1].startswith("direct,lite0,1,")


# ----- prompts


SENTENCES = {
    "another case": ({"Bird": ["x"]}, ["class 'bird'", "`Bird`"]),
    "underscores": ({"bird_": ["x"]}, ["class 'bird'", "`bird_`"]),
    "templates": ({n: ["a photo of a {}."] for n in CLASSES},
                  ["'bird'", "`{}`", ".txt"]),
    "half an emoji": ({n: ["\ud83d"] for n in CLASSES},
                      ["'bird'"]),
    "a text": ({n: "a bird" for n in CLASSES}, ["'bird'", "list"]),
    "a class without sentences": ({n: ["x"] for n in CLASSES[1:]},
                                  ["class 'bird'", "got nothing"]),
    "a class with no sentence": ({n: [] for n in CLASSES}, ["class 'bird'", "got []"]),
    "a list of lists": ([["bird", ["x"]]], ["must map class names"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SENTENCES)
def test_sentences(world, xmore, tmp_path, case):
    data, says = SENTENCES[case]
    (tmp_path / "prompts.json").write_text(json.dumps(data))
    config = written(tmp_path, world.config(tmp_path / "r", prompts=tmp_path / "prompts.json"))
    refused(xmore("benchmark", config), "prompts.json", *says)
    sets = [{"name": "paper"}, {"name": "told", "file": tmp_path / "prompts.json"}]
    config = written(tmp_path, world.config(tmp_path / "r", prompt_sets=sets))
    refused(xmore("benchmark", config), "prompts.json", *says)


@pytest.mark.parametrize(
    "text", [b"'a photo of a {}.',\n'art of a {}.',\n", b'"a photo of a {}."\n"art of a {}."\n']
)
def test_templates_in_quotes(world, xmore, tmp_path, text):
    (tmp_path / "prompts.txt").write_bytes(text)
    config = written(tmp_path, world.config(tmp_path / "r", prompts=tmp_path / "prompts.txt"))
    refused(xmore("benchmark", config), "prompts.txt, line 1", "quotes")


# ----- links, and few images


def test_links_that_lead_to_each_other(world, done, xmore, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / "card.yaml").write_text("name: card\nroot: loop\n")
    photo = next((world.root / "queries").rglob("*.jpg"))
    config = written(tmp_path, world.config(tmp_path / "results"))
    labels = ["--labels", "cat,dog", "--config", config]
    for command in (
        ["datasets", "check", tmp_path / "loop.yaml"],
        ["datasets", "check", tmp_path / "card.yaml"],
        ["datasets", "check", world.root / "tiny.yaml", "--root", tmp_path / "loop"],
        ["benchmark", tmp_path / "loop.yaml"],
        ["sweep", tmp_path / "loop.yaml"],
        ["sweep", config, "--base", tmp_path / "loop.yaml"],
        ["memory", "list", tmp_path / "loop"],
        ["show", "latest", "--results", tmp_path / "loop"],
        ["classify", tmp_path / "loop", *labels],
        ["classify", photo, *labels, "--memory", tmp_path / "loop"],
    ):
        refused(xmore(*command))


def few(folder: Path, world, names: list[str], **changes) -> Path:
    """A config over a table of the first `names`; the others are bytes that are no image."""
    photos = sorted((world.root / "queries").rglob("*.jpg"))
    for number, name in enumerate(names):
        good = not name.startswith("bad")
        (folder / name).write_bytes(photos[number].read_bytes() if good else b"x")
    rows = "".join(f"{name},{number % 2}\n" for number, name in enumerate(names))
    (folder / "test.csv").write_text("path,label\n" + rows)
    (folder / "names.txt").write_text("cat\ndog\n")
    (folder / "card.yaml").write_text(
        "name: few\nroot: .\nclasses: names.txt\nsource: {kind: table, file: test.csv}\n"
    )
    values = {"datasets": ["card.yaml"], "max_rejected": 1.0, "report": True}
    config = world.config(folder / "results", **values | changes)
    data = config.model_dump(mode="json", exclude_none=True) | {"datasets": ["card.yaml"]}
    (folder / "run.yaml").write_text(yaml.safe_dump(data))
    return folder / "run.yaml"


def test_a_single_image(world, xmore, tmp_path):
    answer = xmore("benchmark", few(tmp_path, world, ["0.jpg"]))
    assert answer.returncode == 0, answer
    where = ["--results", tmp_path / "results"]
    for command in (
        ["explain", "latest", "0"],
        ["leaks", "latest"],
        ["compare", "latest", "latest"],
    ):
        answer = xmore(*command, *where)
        assert answer.returncode == 0, answer


def test_no_usable_image(world, xmore, tmp_path):
    config = few(tmp_path, world, ["bad0.jpg", "bad1.jpg"])
    refused(
        xmore("benchmark", config),
        "few",
        "none of its 2 images can be used",
        "bad0.jpg",
        "not an image",
    )


def test_a_model_that_is_named_twice_counts_once_or_is_refused(world, xmore, tmp_path):
    roles = {"inference": ["lite0", "lite0"], "coarse": "lite0-pooled", "fine": "lite0"}
    config = written(tmp_path, world.config(tmp_path / "results"))
    data = yaml.safe_load(config.read_text()) | {"roles": roles}
    config.write_text(yaml.safe_dump(data))
    refused(xmore("benchmark", config), "roles.inference", "twice")


@pytest.mark.slow
def test_two_names_of_one_model_have_rows_each(world, xmore, tmp_path):
    models = {
        "lite0": {"folder": world.root / "models" / "lite0"},
        "same [red]": {"folder": world.root / "models" / "lite0"},
        "lite0-pooled": {"folder": world.root / "models" / "lite0", "pooled": True},
    }
    roles = {"inference": ["lite0", "same [red]"], "coarse": "lite0-pooled", "fine": "lite0"}
    config = world.config(tmp_path / "results", models=models, roles=roles)
    answer = xmore("benchmark", written(tmp_path, config))
    assert answer.returncode == 0 and "same [red]" in answer.stdout, answer
    query = "select count(distinct query_id) as n, count(*) // count(distinct query_id) as k " \
        "from predictions group by model"  # fmt: skip
    answer = xmore("sql", "latest", query, "--format", "json", "--results", tmp_path / "results")
    first, second = json.loads(answer.stdout)
    assert first == second and first["n"] == 20
