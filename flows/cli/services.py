"""`xmore up` and `xmore down`: Prefect's server, a worker, deployments, the demo's image server.

Logs and Prefect's database are in results/prefect, or in PREFECT_HOME if it is set. Each service
has its own process group, listed in services.json. It holds a lock as long as it lives, so another
process to which the system has given the same pid is never mistaken for it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.cli.demo_server import FOLDER, PORT
from flows.cli.deployments import deploy
from flows.cli.orphans import POOL, end_orphans
from flows.cli.terminal.console import waiting
from xmore.files.errors import ServiceError
from xmore.files.locks import is_locked, locked
from xmore.files.paths import PROJECT_ROOT, RESULTS, real, write_whole

HOME = real(Path(os.environ.get("PREFECT_HOME") or RESULTS / "prefect"))
MARK = "XMORE_UP"  # in the environment of all processes that `up` starts, and of their children
LEASES = "prefect.server.concurrency.lease_storage"
PATIENCE = 90.0  # seconds for the server to respond
GRACE = 10.0  # seconds between SIGTERM and SIGKILL


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """A process that `up` started."""

    name: str
    pid: int
    api: str  # address of the Prefect server that it is or uses

    @property
    def alive(self) -> bool:
        return is_locked(_lock(self.name))


def up(port: int) -> tuple[str, list[str]]:
    """Start what is not running yet and deploy the flows.

    If PREFECT_API_URL is set, that server is used and none is started, unless it is our own, or
    was: on this machine, where nothing listens. Raises ServiceError after stopping all services
    again.

    Returns the server's API address, and lines on runs whose worker or process is gone.
    """
    HOME.mkdir(parents=True, exist_ok=True)
    running = next((s.api for s in _services() if s.name == "server" and s.alive), None)
    url, port = _elsewhere(running, port)
    api = url or running or f"http://127.0.0.1:{port}/api"
    try:
        with waiting("server"):
            if not url:
                start = [_tool("prefect"), "server", "start", "--port", str(port)]
                _start("server", start, api, port)
            _wait_for_server(api, ours=not url)
        with waiting("deployments"):
            deploy(api, HOME, lambda: _deploy_all(api))
        told = end_orphans(api, _worker(url), is_locked(_lock("worker")))
        named = ["--pool", POOL, "--name", f"{socket.gethostname()}-{_identity()}"]
        _start("worker", [_tool("prefect"), "worker", "start", *named], api)
        web = ["-m", "http.server", str(PORT), "--bind", "127.0.0.1", "--directory", str(FOLDER)]
        if _taken(PORT) and not is_locked(_lock("demo-web")):
            log.warning(
                "port %d is taken, and the demo's list names it: the demo's images are not served. "
                "Stop the process that listens there, then run `xmore up` again to re-index it.",
                PORT,
            )
        else:
            _start("demo-web", [sys.executable, *web], api, PORT)
    except BaseException:
        down()
        raise
    return api, told


def stay() -> None:
    """Wait as long as all services live. Raises ServiceError when one has ended."""
    while not (ended := [service.name for service in _services() if not service.alive]):
        time.sleep(1)
    raise ServiceError(f"the {ended[0]} has ended by itself. See {HOME / ended[0]}.log.")


def down() -> tuple[list[str], list[str]]:
    """Stop all services that `up` started and their children.

    The server is stopped last: it is told first which runs have ended with their worker.

    Returns the services' names, and lines on these runs.
    """
    ended = [service for service in _services() if service.alive]
    servers = [service for service in ended if service.name == "server"]
    _stop([service for service in ended if service not in servers])
    # Flow runs and downloads have their own sessions.
    _kill(pid for pid in _marked() if _group(pid) not in [server.pid for server in servers])
    api = next((service.api for service in ended if service.name == "worker"), None)
    api = api or next((server.api for server in servers), None)
    told = end_orphans(api, _worker(None if servers else api), alive=False) if api else []
    _stop(servers)
    _kill(_marked())
    (HOME / "services.json").unlink(missing_ok=True)
    return [service.name for service in ended], told


def _stop(services: list[Service]) -> None:
    for sign, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        for service in services:
            if service.alive:
                with suppress(ProcessLookupError):
                    os.killpg(service.pid, sign)
        _wait(services, seconds)


def _kill(processes: Iterable[int]) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _group(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _identity() -> str:
    """Return what tells our workers from others: a word that is kept beside the database."""
    path = HOME / "worker"
    if not path.exists():
        write_whole(path, uuid.uuid4().hex[:8].encode())
    return path.read_text()


def _worker(url: str | None) -> str:
    """Return the end of the names of our workers on the server `url`; None is our own server.

    Ours may have been started under another host's name: a container gets a new one each time.
    Elsewhere, a copy of our folder on another machine has workers, too.
    """
    return f"{socket.gethostname()}-{_identity()}" if url else f"-{_identity()}"


def _start(name: str, command: list[str], api: str, port: int | None = None) -> None:
    others = [service for service in _services() if service.name != name]
    if is_locked(_lock(name)):
        return
    if port and _taken(port):
        raise ServiceError(
            f"port {port} is taken, so the {name} cannot start. Stop the process that listens there"
            + (", or choose another port with --port." if name == "server" else ".")
        )
    log = HOME / f"{name}.log"
    with log.open("ab") as stream, locked(_lock(name)) as held:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=HOME,
            env=_environment(api),
            pass_fds=[held],  # from here on the process holds the lock, until it ends
        )
    services = [*others, Service(name, process.pid, api)]
    write_whole(HOME / "services.json", json.dumps([asdict(s) for s in services]).encode())


def _services() -> list[Service]:
    try:
        return [Service(**entry) for entry in json.loads((HOME / "services.json").read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


def _lock(name: str) -> Path:
    return HOME / f"{name}.lock"


def _tool(name: str) -> str:
    """Return the path of a command in this Python's environment."""
    return str(Path(sys.executable).with_name(name))


def _environment(api: str) -> dict[str, str]:
    return os.environ | {
        MARK: str(HOME),
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(HOME),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(HOME / "storage"),
        # In its memory, a server that is started again has forgotten who holds which slot.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": f"{LEASES}.filesystem",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _deploy_all(api: str) -> None:
    pool = [POOL, "--type", "process", "--overwrite"]
    _run([_tool("prefect"), "work-pool", "create", *pool], api)
    _run([_tool("prefect"), "--no-prompt", "deploy", "--all"], api)


def _run(command: list[str], api: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=PROJECT_ROOT, env=_environment(api)
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        tail = lines[-1] if lines else "no output"
        raise ServiceError(f"`{' '.join([Path(command[0]).name, *command[1:]])}` failed: {tail}")


def _elsewhere(running: str | None, port: int) -> tuple[str | None, int]:
    """Return PREFECT_API_URL if it is not ours, and the port of a server of ours.

    The shell in which `down` is followed by `up` has the variable that `up` told it to set.
    """
    url = os.environ.get("PREFECT_API_URL")
    here = re.fullmatch(r"http://(?:127\.0\.0\.1|localhost):(\d+)/api/?", url or "")
    if here and (url == running or not _taken(int(here[1]))):
        return None, int(here[1])
    return url, port


def _wait_for_server(api: str, ours: bool) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen(f"{api}/health", timeout=5):
            return
        if ours and not is_locked(_lock("server")):
            break
        time.sleep(0.3)
    raise ServiceError(f"{api}: Prefect's server does not respond. See {HOME / 'server.log'}.")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(services: list[Service], seconds: float) -> None:
    until = time.monotonic() + seconds
    while any(service.alive for service in services) and time.monotonic() < until:
        time.sleep(0.1)


def _marked() -> list[int]:
    """Return the pids of all other processes with our mark; empty if there is no Linux /proc."""
    wanted = f"{MARK}={HOME}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if wanted in path.read_bytes().split(b"\0") and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found
