"""Prefect's API, asked directly."""

import time
from collections import Counter

import httpx

PATIENCE = 240  # seconds; a slow machine is no failure


class Server:
    """Prefect's API, asked directly."""

    def __init__(self, api: str) -> None:
        self.api, self.client = api, httpx.Client(timeout=30)

    def post(self, path: str, data) -> list | dict:
        return self.ask("POST", path, data).json()

    def ask(self, method: str, path: str, data) -> httpx.Response:
        until = time.monotonic() + PATIENCE
        while True:
            answer = self.client.request(method, f"{self.api}/{path}", json=data)
            if answer.status_code != 503 or time.monotonic() > until:
                break
            time.sleep(0.5)  # its SQLite was busy: other tests use this server
        assert answer.is_success, answer.text
        return answer

    def deployment(self, name: str) -> dict:
        return next(d for d in self.post("deployments/filter", {}) if d["name"] == name)

    def states(self, deployment: str) -> Counter[str]:
        """How many of its runs are in which state."""
        wanted = {"deployments": {"name": {"any_": [deployment]}}}
        return Counter(run["state"]["type"] for run in self.post("flow_runs/filter", wanted))

    def log(self) -> str:
        """The lines of the logs of all runs, newest first."""
        return "\n".join(line["message"] for line in self._lines())

    def tasks_log(self) -> list[str]:
        """The lines of the logs of all tasks."""
        return [line["message"] for line in self._lines() if line["task_run_id"]]

    def _lines(self) -> list[dict]:
        return self.post("logs/filter", {"sort": "TIMESTAMP_DESC"})

    def artifact(self, key: str) -> dict:
        found = self.post("artifacts/filter", {"sort": "CREATED_DESC"})
        return next(artifact for artifact in found if artifact["key"] == key)

    def wait(self, deployment: str, expected: Counter[str], patience: float = PATIENCE) -> None:
        """Until there are at least so many runs in these states."""
        until = time.monotonic() + patience
        while not (states := self.states(deployment)) >= expected:
            assert time.monotonic() < until, states
            time.sleep(1)
