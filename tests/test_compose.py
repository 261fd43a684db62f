"""compose.yaml and the Dockerfile, as far as they can be tried without Docker."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.settings import Settings

from xmore.files.paths import PROJECT_ROOT

COMPOSE = yaml.safe_load((PROJECT_ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
FOLDER = "/xmore/"  # the project in the image


def test_every_variable_is_one_of_prefects():
    ours = {name for service in SERVICES.values() for name in service.get("environment", {})}
    ours = {name for name in ours if not name.startswith("POSTGRES_")}
    settings = Settings(api={"url": "http://here/api"})  # what is None has no variable
    assert ours and ours <= set(settings.to_environment_variables(exclude_unset=False))


def test_every_volume_is_a_folder_that_runs_write():
    folders = [place.split(":") for service in SERVICES.values() for place in service["volumes"]]
    assert {name for name, _ in folders} == set(COMPOSE["volumes"])
    ignored = (PROJECT_ROOT / ".gitignore").read_text()
    made = re.search(r"mkdir -p (.*)", (PROJECT_ROOT / "Dockerfile").read_text())[1].split()
    for _, place in folders:
        if place.startswith(FOLDER):
            inside = place.removeprefix(FOLDER)
            assert f"/{inside}/" in ignored or inside.startswith("results")
            assert inside in made or inside == "results"


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "database"])
def test_every_command_is_there(name):
    program, *rest = SERVICES[name]["command"].split()
    tool = Path(sys.executable).with_name(program)
    words = [word for word in rest if not word.startswith("-") and word != "0.0.0.0"]
    options = [word for word in rest if word.startswith("--")]
    shown = subprocess.run([tool, *words, "--help"], capture_output=True, text=True, check=True)
    assert all(option in shown.stdout for option in options)


def test_no_data_travels_into_the_image():
    left_out = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    for line in (PROJECT_ROOT / ".gitignore").read_text().splitlines():
        if line.startswith("/") and not line.startswith("/results"):
            assert line.strip("/") in left_out
    assert {"results/*", ".env", ".venv*"} <= set(left_out)
