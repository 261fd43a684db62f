"""Spark, which img2dataset and autofaiss hand their shards to where the config says `pyspark`."""

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
    """Raise ConfigError where a config asks for Spark and pyspark or Java is absent."""
    asking = [
        key
        for key, value in (
            ("download.distributor", config.download.distributor),
            ("index.distributed", config.index.distributed),
        )
        if value == "pyspark"
    ]
    if not asking:
        return
    if find_spec("pyspark") is None:
        raise ConfigError(
            f"`{asking[0]}: pyspark` needs pyspark, which is not installed: pip install "
            "'xmore[spark]', or leave the key out."
        )
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else "java"
    if shutil.which(java) is None:
        where = f"{java} (JAVA_HOME) is none" if home else "there is none on PATH"
        raise ConfigError(
            f"`{asking[0]}: pyspark` needs Java 17 or later; {where}. Install it (apt-get install "
            "default-jre-headless) or leave the key out."
        )


@contextmanager
def spark_session(master: str, environment: Mapping[str, str]) -> Iterator[None]:
    """An active session; `environment` is that of its Python workers, wherever they run.

    Both libraries use the active one; their own would take 16 GB on this machine alone. What else
    Spark can be told stands in its spark-defaults.conf (SPARK_CONF_DIR).
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName("xmore")
    builder = builder.config("spark.ui.enabled", "false")  # it would listen to all the network
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
