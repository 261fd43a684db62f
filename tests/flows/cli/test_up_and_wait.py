"""`xmore up --wait`: what a container or systemd runs, on processes that only sleep."""

import os
import signal
import threading
import time

import pytest

from flows.cli import services, upkeep
from xmore.files.errors import ServiceError


@pytest.fixture
def asleep(tmp_path, monkeypatch):
    """`up` starts two processes that sleep; returns a function that gives their ids."""

    def up(port: int) -> tuple[str, list[str]]:
        for name in ("server", "worker"):
            services._start(name, ["sleep", "600"], "http://127.0.0.1:9/api")
        return "http://127.0.0.1:9/api", []

    monkeypatch.setattr(services, "HOME", tmp_path)
    monkeypatch.setattr(services, "up", up)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    # Tests may run as a script's background job, and a shell lets those ignore Ctrl+C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: {each.name: each.pid for each in services._services()}
    services.down()
    for number, handler in before.items():
        signal.signal(number, handler)


def soon(then) -> None:
    """Call `then` from another thread as soon as two processes sleep."""

    def act() -> None:
        while len(services._services()) < 2:
            time.sleep(0.05)
        time.sleep(0.5)
        then()

    threading.Thread(target=act).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_and_is_no_error(asleep, capsys, number):
    soon(lambda: os.kill(os.getpid(), number))
    upkeep.up(wait=True)
    assert "Stop it with: Ctrl+C" in (told := capsys.readouterr().out)
    assert told.splitlines()[-1] == "stopped: server, worker"
    assert not asleep() and not services._marked()


def test_a_service_that_ends_by_itself_stops_all_and_is_named(asleep, capsys):
    soon(lambda: os.kill(asleep()["worker"], signal.SIGKILL))
    with pytest.raises(ServiceError, match=r"the worker has ended by itself. See .*worker.log"):
        upkeep.up(wait=True)
    assert capsys.readouterr().out.splitlines()[-1] == "stopped: server"
    assert not asleep() and not services._marked()
