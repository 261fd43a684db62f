"""Start a flow: as Prefect's if a server is configured, otherwise as a plain function."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from xmore.files.errors import ServiceError
from xmore.files.imports import load_first
from xmore.files.progress import working

if TYPE_CHECKING:
    from flows.reindex import Reindexed
    from xmore.config.benchmark import BenchmarkConfig
    from xmore.config.memory import ReindexConfig
    from xmore.config.reco import RecoTrainConfig

RESUMES = "complete parts are kept. Run the same command again to resume."


def start_benchmark(config: BenchmarkConfig, resume: str | None = None, again: bool = False) -> str:
    """Run a benchmark and return the run's name. Raises XmoreError."""
    from xmore.models.spec import check_tag

    for name in config.roles.models:
        check_tag(name, config.model(name))  # before Prefect is imported, which takes seconds
    load_first("flows.benchmark")
    from flows.benchmark import xmore_benchmark

    return str(_call(xmore_benchmark, config, resume, again))


def start_reindex(config: ReindexConfig) -> Reindexed:
    """Build a memory or bring it up to date. Raises XmoreError."""
    load_first("flows.reindex")
    from flows.reindex import Reindexed, xmore_reindex

    done = _call(xmore_reindex, config)
    assert isinstance(done, Reindexed)
    return done


def start_reco_train(config: RecoTrainConfig) -> Any:
    """Train RECO's layers. Raises XmoreError."""
    load_first("flows.reco_train")
    from flows.reco_train import xmore_reco_train

    return _call(xmore_reco_train, config)


def _call(flow: Any, *arguments: Any) -> Any:
    import httpx
    from prefect.settings import PREFECT_API_URL

    api = PREFECT_API_URL.value()
    try:
        if not api:
            with working(flow.name):
                return flow.fn(*arguments)
        health = httpx.get(f"{api}/health", timeout=10)
        if health.status_code != 200 or health.text.strip() != "true":
            raise ServiceError(
                f"{api}: is no API of Prefect's server, which ends in /api. Correct "
                "PREFECT_API_URL, or unset it to run without a server."
            )
        return flow(*arguments)
    except httpx.TransportError as error:
        raise ServiceError(
            f"{api}: Prefect's server does not respond ({error}). Complete parts are kept. Start "
            "it and run the same command again, or unset PREFECT_API_URL to run without it."
        ) from error
    except KeyboardInterrupt:  # typer makes it exit code 130
        print(f"\ninterrupted: {RESUMES}", file=sys.stderr)
        raise
