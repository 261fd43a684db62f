"""Take the pictures of the pages anew: `python docs/pictures.py`, after `make demo` and `xmore up`.

It runs the demo's re-index and benchmark as deployments of the server that PREFECT_API_URL names,
and looks at Prefect's pages and at the report with a headless Chromium. With a FOLDER, the pictures
of the runs' own pages, which no page shows, are written there, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Page, page  # noqa: E402

DOCS = ROOT / "docs"
PATIENCE = 120.0  # seconds for a page of Prefect's to show what it loads
SETTLE = 2.0  # seconds for it to move things to their places
PARROT = "adelaide-rosella"  # the example: image and captions both take it for an insect


def run(name: str) -> str:
    """Run a deployment to its end; returns the id of its flow run."""
    xmore = ["deployment", "run", f"{name}/{name}", "--watch"]
    subprocess.run([Path(sys.executable).with_name("prefect"), *xmore], check=True)
    found = ask(
        "flow_runs/filter", {"sort": "START_TIME_DESC", "flows": {"name": {"any_": [name]}}}
    )
    return found[0]["id"]


def ask(path: str, data: dict[str, Any]) -> list[dict[str, Any]]:
    """Post to Prefect's API."""
    answer = httpx.post(f"{os.environ['PREFECT_API_URL']}/{path}", json=data, timeout=60)
    return answer.raise_for_status().json()


def artifact(key: str) -> dict[str, Any]:
    """Return the newest artifact with this key."""
    found = ask("artifacts/filter", {"sort": "CREATED_DESC"})
    return next(each for each in found if each["key"] == key)


def show(tab: Page, path: str, text: str, width: int, height: int) -> None:
    """Open one of Prefect's pages, and wait until it shows a text."""
    tab.look(width, height, "dark")
    tab.go(os.environ["PREFECT_API_URL"].removesuffix("/api") + path)
    until = time.monotonic() + PATIENCE
    while text not in (tab.run("document.body.innerText") or ""):
        if time.monotonic() > until:
            raise SystemExit(f"{path}: does not show {text!r}")
        time.sleep(0.5)
    time.sleep(SETTLE)


def prefects(tab: Page, folder: Path | None) -> None:
    """The leaderboard and the form; in `folder`, the runs, their cards and the report."""
    reindex, benchmark = run("xmore-reindex"), run("xmore-benchmark")
    of = ask("deployments/filter", {"deployments": {"name": {"any_": ["xmore-reindex"]}}})[0]["id"]
    show(tab, f"/artifacts/artifact/{artifact('leaderboard-demo')['id']}", "xmore none", 1350, 800)
    tab.picture(DOCS / "leaderboard.png")
    show(tab, f"/deployments/deployment/{of}/run", "clip-retrieval (Optional)", 1150, 1700)
    tab.picture(DOCS / "reindex-form.png")
    if not folder:
        return
    for name, flow_run in (("reindex", reindex), ("benchmark", benchmark)):
        show(tab, f"/runs/flow-run/{flow_run}", "Beginning flow run", 1350, 1800)
        tab.picture(folder / f"{name}.png")
    for key in ("report-demo", "snapshot-demo", "comparisons-demo"):
        show(tab, f"/artifacts/artifact/{artifact(key)['id']}", "Created", 1350, 1400)
        tab.picture(folder / f"{key}.png")


def reports(tab: Page) -> None:
    """The top of the newest report, and one of its examples."""
    newest = max((ROOT / "results" / "runs").glob("demo-*/report/report.html"))
    tab.look(990, 985, "light")
    tab.open(newest)
    tab.picture(DOCS / "report.png")
    tab.look(990, 1215, "dark")
    tab.open(newest)
    opened = tab.run(
        f"(() => {{ const all = [...document.querySelectorAll('#cards button, #cards a')];"
        f"const one = all.find(e => e.closest('li').innerHTML.includes('{PARROT}')) ?? all[4];"
        "one.click(); return document.querySelector('dialog').open; })()"
    )
    assert opened, "the example did not open"
    time.sleep(SETTLE)
    tab.picture(DOCS / "report-example.png")


if __name__ == "__main__":
    if "PREFECT_API_URL" not in os.environ:
        raise SystemExit("run `make demo` and `xmore up`, and set PREFECT_API_URL as it says")
    wanted = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with TemporaryDirectory() as profile, page(Path(profile)) as chromium:
        reports(chromium)
        prefects(chromium, wanted)
