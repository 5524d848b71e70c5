"""Apache Spark as the engine: one session in which every instant is UTC, opened fast or refused with the key that is wrong."""

import atexit
import os
import re
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import ibis
from ibis.backends.sql import SQLBackend

from features.errors import ConfigError, first_line
from features.scratch import claim, leave

if TYPE_CHECKING:
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

OLDEST_JAVA = 17
SCRATCH = "spark.beforehand.scratch"
# What makes the answers those of DuckDB: not for a config to change.
FIXED: Mapping[str, str] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_LTZ",
    # What cannot be cast is an error or, by try_cast, null; a sum that overflows is an error.
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.jsonGenerator.ignoreNullFields": "false",
    # A query may name tables, not files.
    "spark.sql.runSQLOnFiles": "false",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Results are feature tables, as large as DuckDB would give; the driver's memory bounds them.
    "spark.driver.maxResultSize": "0",
}
_SECONDS_TO_REACH = 5
_SECONDS_TO_START = 60
_LOOPBACK = "127.0.0.1"


def connect_spark(*, master: str, memory: str, options: Mapping[str, str], spill: Path) -> SQLBackend:
    """Open a session on a Spark master, for example `local[*]` or `spark://host:7077`.

    `memory` is that of every executor and of the driver (for example `2GB`); `options` are further `spark.*` settings. What Spark
    has to say goes to `spark.log` in `spill`, never to the console. Sessions of one process share one application.

    Raises ConfigError naming the key when PySpark or Java is missing, the master cannot be reached, or no executor starts.
    """
    if find_spec("pyspark") is None:
        raise ConfigError(
            "engine.kind is spark, but PySpark is not installed: pip install -e '.[spark]', in the folder of this project"
        )
    _require_java()
    _require_reachable(master)
    is_first = _running() is None
    spill.mkdir(parents=True, exist_ok=True)
    log = spill.resolve() / "spark.log"
    try:
        session = _session(master, memory, options, spill.resolve(), log)
    except Exception as error:  # noqa: BLE001 - py4j, PySpark and Java errors have no common base
        raise ConfigError(f"engine.master: {master} does not start: {_cause(error)}; more in {log}") from None
    if is_first:
        _require_executor(session, master, memory, log)
    return ibis.pyspark.connect(session)


def _session(master: str, memory: str, options: Mapping[str, str], spill: Path, log: Path) -> "SparkSession":
    from pyspark import SparkConf
    from pyspark.logger import PySparkLogger
    from pyspark.sql import SparkSession

    # They print what an engine could not read, which may be a user's id.
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        PySparkLogger.getLogger(name).disabled = True
    # Every result that comes back as a frame would repeat it; the tests hold what comes back against DuckDB's.
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
    if running := _running():
        return SparkSession(running).newSession()
    scratch = spill / f"spark-{token_hex(4)}"
    atexit.register(leave, claim(scratch))
    local = {"spark.driver.host": _LOOPBACK, "spark.driver.bindAddress": _LOOPBACK} if master.startswith("local") else {}
    size = memory.lower().removesuffix("b")  # Java's way to write it: 2g, 512m
    usual = {
        "spark.app.name": "beforehand",
        "spark.executor.memory": size,
        "spark.driver.memory": size,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
    }
    settings = {**usual, **local, **options, **FIXED, "spark.master": master, SCRATCH: str(scratch)}
    conf = SparkConf().setAll(list(settings.items()))
    _start_java(conf, log, local=bool(local))
    session = SparkSession.builder.config(conf=conf).getOrCreate()
    if local and "PYSPARK_PYTHON" not in os.environ:
        # Workers here run this very Python, not the first on the path.
        session.sparkContext.pythonExec = sys.executable
    atexit.register(_stop, session)
    return session


def _running() -> "SparkContext | None":
    from pyspark import SparkContext

    return SparkContext._active_spark_context


def _start_java(conf: "SparkConf", log: Path, *, local: bool) -> None:
    """Start the Java side with its output in a file: it inherits the console otherwise, also for its last words at exit."""
    from pyspark import SparkContext
    from pyspark.java_gateway import launch_gateway

    if SparkContext._gateway is None:
        with log.open("w") as told, _bound_to_loopback(local):
            gateway = launch_gateway(conf, popen_kwargs={"stdout": told, "stderr": told})  # type: ignore[no-untyped-call]
        SparkContext._ensure_initialized(gateway=gateway, conf=conf)


@contextmanager
def _bound_to_loopback(local: bool) -> Iterator[None]:
    # Masters and workers of a local cluster take their address from nowhere else.
    name = "SPARK_LOCAL_IP"
    if not local or name in os.environ:
        yield
        return
    os.environ[name] = _LOOPBACK
    try:
        yield
    finally:
        del os.environ[name]


def _cause(error: Exception) -> str:
    """Give what went wrong in one line; of a Java error that is not its first, which only names the call."""
    java = re.search(r"^: (?:[\w.$]+: )?(.+)$", str(error), flags=re.MULTILINE)
    return java[1] if java else first_line(error)


def _stop(session: "SparkSession") -> None:
    with suppress(Exception):
        session.stop()


def java_version() -> int | None:
    """Give the major version of the Java that Spark would run on, or None where there is none."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        return None
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr)
    return int(found[1]) if found else None


def _require_java() -> None:
    found = java_version()
    if found is None or found < OLDEST_JAVA:
        have = "none was found" if found is None else f"this is Java {found}"
        raise ConfigError(
            f"engine.kind is spark, which needs Java {OLDEST_JAVA} or later, and {have}: install it (apt install "
            "openjdk-17-jre-headless, brew install openjdk@17, or https://adoptium.net) and set JAVA_HOME to its folder"
        )


def _require_reachable(master: str) -> None:
    """Knock at the master's door first: Spark itself would try for a minute and end in a Java traceback."""
    doors = re.findall(r"([^\s/:,\[\]]+|\[[0-9a-fA-F:]+\]):(\d+)", master.partition("://")[2])
    told = ""
    for host, port in doors:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_REACH):
                return
        except (OSError, OverflowError) as error:
            told = first_line(error)
    if doors:
        raise ConfigError(
            f"engine.master: {master} cannot be reached ({told}): check the address, that the cluster runs, "
            "and that this machine may connect to it"
        )


def _require_executor(session: "SparkSession", master: str, memory: str, log: Path) -> None:
    """Run one tiny job: a cluster without room for our executors would wait for ever, without a word."""
    worker = ThreadPoolExecutor(max_workers=1)
    waiting = worker.submit(lambda: session.range(1).count())
    try:
        waiting.result(timeout=_SECONDS_TO_START)
    except Exception as error:  # noqa: BLE001 - py4j, PySpark and Java errors have no common base
        session.sparkContext.cancelAllJobs()
        said = "no executor started" if isinstance(error, TimeoutError) else _cause(error)
        _stop(session)
        raise ConfigError(
            f"engine.master: {master} does not run a first job within {_SECONDS_TO_START} seconds ({said}): check that its "
            f"workers have {memory} free (engine.memory) and can reach this machine; more in {log}"
        ) from None
    finally:
        worker.shutdown(wait=False)
