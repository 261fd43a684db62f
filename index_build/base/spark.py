"""Spark, to which img2dataset and autofaiss hand their shards if a config sets `pyspark`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from xmore.config.memory import ReindexConfig
from xmore.files.errors import ConfigError


def check_spark(config: ReindexConfig) -> None:
    """Raise ConfigError if a config needs Spark, and pyspark or Java is not installed."""
    keys = [
        key
        for key, value in (
            ("download.distributor", config.download.distributor),
            ("index.distributed", config.index.distributed),
        )
        if value == "pyspark"
    ]
    if not keys:
        return
    if find_spec("pyspark") is None:
        raise ConfigError(
            f"`{keys[0]}: pyspark` needs pyspark, which is not installed. Run pip install "
            "'xmore[spark]', or remove the key."
        )
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else "java"
    if shutil.which(java) is None:
        where = f"{java} (JAVA_HOME) does not exist" if home else "there is none on PATH"
        raise ConfigError(
            f"`{keys[0]}: pyspark` needs Java 17 or later; {where}. Install it (apt-get install "
            "default-jre-headless) or remove the key."
        )


@contextmanager
def spark_session(master: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Keep a session active; `environment` holds variables for its Python workers.

    Both libraries use the active session; their own would take 16 GB on this machine alone. Other
    settings of Spark belong in its spark-defaults.conf (SPARK_CONF_DIR).
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName("xmore")
    builder = builder.config("spark.ui.enabled", "false")  # it would listen on all interfaces
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    if master.startswith("local"):
        builder = builder.config("spark.driver.host", "127.0.0.1")
        builder = builder.config("spark.driver.bindAddress", "127.0.0.1")
    for name, value in environment.items():
        builder = builder.config(f"spark.executorEnv.{name}", value)
    session = builder.getOrCreate()
    try:
        yield
    finally:
        session.stop()
