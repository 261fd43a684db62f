"""The command line, as a user meets it: a real process, its output and its exit code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.cli.terminal.runs import show_run
from xmore.results.runs import load_run
from xmore.results.views import open_views

ENVIRONMENT = os.environ | {"COLUMNS": "120"}


@pytest.fixture
def xmore(warm):
    """The command line, in a process of its own that is up at once."""

    def run(*arguments, cwd=None):
        process = warm.xmore(*arguments, cwd=cwd, environment=ENVIRONMENT)
        return subprocess.CompletedProcess(arguments, *process.end())

    return run


@pytest.fixture
def config_file(done_again, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(done_again.model_dump(mode="json", exclude_none=True)))
    return path


def test_benchmark_from_another_directory_prints_the_leaderboard(config_file, tmp_path):
    command = [str(Path(sys.executable).parent / "xmore"), "benchmark", str(config_file)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    assert answer.returncode == 0, answer.stderr
    assert "every stage was already complete" in answer.stdout
    assert "xmore minmax" in answer.stdout and "views.sql" in answer.stdout
    stages = float(re.search(r"^Run tiny-.*: ([\d.]+) s in its stages, ", answer.stdout, re.M)[1])
    whole = re.fullmatch(r"This command took (\d+) s in all\.", answer.stdout.splitlines()[-1])
    assert whole and int(whole[1]) > stages, "start-up alone takes more than a second"


def test_the_printed_table_is_the_view_leaderboard(done, capsys):
    show_run(done.config.results, done.name)
    printed = capsys.readouterr().out
    connection = open_views(load_run(done.config.results, done.name))
    rows = connection.execute(
        "select method, adjustment, m, top1 from leaderboard order by method, adjustment"
    ).fetchall()
    lines = re.findall(r"^ ?([a-z-]+(?: [a-z-]+)?) +(\d+)? +\d+ +(\d+\.\d) ", printed, re.M)
    methods = [line for line in lines if line[0].split()[0] in {row[0] for row in rows}]
    expected = [
        (f"{method} {adjustment or ''}".strip(), "" if m is None else str(m), f"{100 * top1:.1f}")
        for method, adjustment, m, top1 in rows
    ]
    assert sorted(methods) == sorted(expected)


FEW_ADDRESSES = """if True:
    import resource
    from flows.cli.main import app
    resource.setrlimit(resource.RLIMIT_AS, (400_000_000, -1))
    app()"""


def test_too_little_virtual_memory_is_one_line_not_a_crash(warm):
    code, _, error = warm.code(FEW_ADDRESSES, "runs").end(60)
    assert code == 2 and error.startswith("error: this shell allows 0.4 GB of virtual memory")
    assert "`ulimit -v unlimited`" in error and error.count("\n") == 1


def test_runs_and_verify(done, xmore):
    results = done.config.results
    answer = xmore("runs", "--results", results)
    assert answer.returncode == 0 and done.name in answer.stdout and "completed" in answer.stdout
    answer = xmore("verify", done.name, "--results", results)
    assert answer.returncode == 0 and ": intact (" in answer.stdout


def test_verify_finds_a_flipped_byte_and_repair_lets_it_be_made_again(world, tmp_path, xmore):
    from flows.benchmark import xmore_benchmark

    config = world.config(tmp_path)
    name = xmore_benchmark.fn(config)
    scores = next(r for r in load_run(tmp_path, name).artifacts if r.stage == "scores")
    part = Path(scores.path) / "part-00002.parquet"
    good = part.read_bytes()
    part.write_bytes(good[:99] + bytes([good[99] ^ 1]) + good[100:])
    answer = xmore("verify", name, "--results", tmp_path)
    assert answer.returncode == 1 and str(part) in answer.stdout.replace("\n", "")
    answer = xmore("verify", name, "--results", tmp_path, "--json")
    tables = json.loads(answer.stdout)
    assert answer.returncode == 1 and str(part) in tables["damaged"][0]["problem"]
    assert tables["moved"] == [] and tables["read"][0]["bytes"] > 0
    answer = xmore("verify", name, "--results", tmp_path, "--repair")
    assert answer.returncode == 1 and "moved aside" in answer.stdout
    answer = xmore("verify", "--all", "--results", tmp_path)
    assert answer.returncode == 1 and f"run {name}: scores are gone" in answer.stdout
    advice = f"`xmore benchmark --resume {name} --results {tmp_path}` makes them again"
    assert advice in answer.stdout and "--repair" not in answer.stdout
    assert xmore("benchmark", "--resume", name, "--results", tmp_path).returncode == 0
    assert part.read_bytes() == good
    answer = xmore("verify", "--all", "--results", tmp_path)
    assert answer.returncode == 0 and ": intact (" in answer.stdout
    assert f"1 earlier moved aside as damaged, such as {part.parent}.broken-1: no" in answer.stdout
    assert xmore("verify", name, "--results", tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["benchmark", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["show", "latest", "--results", "."], "no runs in"),
        (["reindex", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, xmore, arguments, says):
    answer = xmore(*arguments, cwd=tmp_path)
    assert answer.returncode == 2 and says in answer.stderr
    assert answer.stderr.count("\n") == 1 and answer.stdout == ""
    traced = xmore("--debug", *arguments, cwd=tmp_path)
    assert "Traceback" in traced.stderr and traced.returncode != 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("leeks", "No such command 'leeks'. Did you mean 'leaks'? See `xmore -h`."),
        ("memory shwo", "No such command 'shwo'. Did you mean 'show'? See `xmore memory -h`."),
        (
            "show --al-columns",
            "No such option: --al-columns (Possible options: --all-columns). See `xmore show -h`.",
        ),
        ("show --json", "Missing argument 'run'. See `xmore show -h`."),
        ("runs rm", "Missing argument 'run'. See `xmore runs rm -h`."),
        (
            "export latest --to x",
            "Invalid value for '--to': 'x' is not one of 'latex', 'markdown', 'csv', 'json', "
            "'clip-benchmark'. See `xmore export -h`.",
        ),
    ],
)
def test_a_misspelt_command_is_one_line_too(xmore, arguments, says):
    answer = xmore(*arguments.split())
    assert (answer.returncode, answer.stdout) == (2, ""), answer
    assert answer.stderr == f"error: {says}\n"


@pytest.mark.parametrize("group", [[], ["memory"]])
def test_without_a_command_the_help_is_printed(xmore, group):
    answer = xmore(*group)
    assert answer.returncode == 2 and "Usage: xmore" in answer.stdout and not answer.stderr


XMORE = str(Path(sys.executable).parent / "xmore")


@pytest.mark.parametrize(
    ("streams", "code", "says"),
    [
        (">&-", 0, ""),
        ("<&- >&-", 0, ""),
        ("2>&-", 0, ""),
        (">/dev/full", 2, "No space left on device. Free disk space."),
        ("| true; exit ${PIPESTATUS[0]}", 1, ""),
    ],
)
def test_standard_streams_that_are_closed_or_full(done, streams, code, says):
    command = f"sleep 0.1; exec {XMORE} runs --results '{done.config.results}'"
    answer = subprocess.run(
        ["bash", "-c", f"({command}) {streams}"], stderr=subprocess.PIPE, text=True, timeout=120
    )
    assert answer.returncode == code and says in answer.stderr, answer
    assert answer.stderr.count("\n") == bool(says)


@pytest.mark.parametrize(
    "command",
    ["show", "list", "gc", "takedown list", "takedown traces"],
)
def test_a_misspelt_memory_is_told_and_no_folder_is_made(tmp_path, xmore, command):
    answer = xmore("memory", *command.split(), tmp_path / "memroy")
    assert answer.returncode == 2 and not answer.stdout, answer.stdout
    assert answer.stderr.startswith(f"error: {tmp_path / 'memroy'}: no memory is there. Correct ")
    assert not list(tmp_path.iterdir())
