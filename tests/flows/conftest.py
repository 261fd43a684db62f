"""A Prefect server and worker for the tests of deployments."""

from collections.abc import Iterator

import pytest
from prefect_api import Server
from sharing import flocked, session_root


@pytest.fixture
def server(prefect_server, tmp_path_factory) -> Iterator[Server]:
    """The shared server, for one of these tests at a time: they count runs and cancel them."""
    with flocked(session_root(tmp_path_factory) / "deployments.lock"):
        yield Server(prefect_server)
