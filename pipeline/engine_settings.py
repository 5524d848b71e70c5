"""The `engine` section of a config: which engine reads events, and how it is opened."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from ibis.backends.sql import SQLBackend
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from features.engines import bytes_of, connect
from features.errors import ConfigError
from features.spark import FIXED, SCRATCH, connect_spark
from pipeline.strict import Strict, as_value_error

Memory = Annotated[str, StringConstraints(pattern=r"^([1-9]\d{2,5}MB|[1-9]\d{0,3}GB)$")]
OptionValue = Annotated[str, Field(coerce_numbers_to_str=True)]


def _master(master: str) -> str:
    if not _MASTER.fullmatch(master):
        raise ConfigError(f"{master!r} is not a Spark master: write local[*], spark://host:7077, yarn or k8s://https://host:443")
    return master


def _options(options: dict[str, str]) -> dict[str, str]:
    for key in options:
        if not key.startswith("spark."):
            raise ConfigError(f"{key!r} is not a setting of Spark: these start with spark.")
        if key in FIXED or key in ("spark.master", SCRATCH):
            raise ConfigError(f"{key!r} may not be changed: beforehand sets it, so that every engine gives the same rows")
        if _SECRET.search(key):
            raise ConfigError(f"{key!r} looks like a secret, which a config may not hold: use a credential provider of the cluster")
    return options


_MASTER = re.compile(
    r"local(\[(\d+|\*)(, *\d+)?\])?|local-cluster\[\d+, *\d+, *\d+\]|spark://[^\s:/,]+:\d+(,[^\s:/,]+:\d+)*|yarn|k8s://\S+"
)
_SECRET = re.compile(r"secret|password|passwd|token|credential|access\.?key", flags=re.IGNORECASE)


class DuckDBSettings(Strict):
    """DuckDB, embedded in the process: needs nothing else."""

    kind: Literal["duckdb"] = "duckdb"
    memory: Memory = Field("2GB", description="What the engine may take, about; the rest spills to disk.")
    threads: int = Field(2, ge=1, description="Threads of the engine.")

    @property
    def bytes(self) -> int | None:
        """The memory that one computation may take."""
        return bytes_of(self.memory)

    def open(self, spill: Path) -> SQLBackend:
        """Open the engine; temporary files go beside `spill` (see `connect`), or beside its first folder that is not there yet."""
        # DuckDB makes the last folder of a path alone, and who only looks makes no `output`.
        missing = [folder for folder in spill.absolute().parents if not folder.is_dir()]
        place = missing[-1].with_name(f".{missing[-1].name}_spill") if missing else spill
        return connect(memory=self.memory, threads=self.threads, spill=place)


class SparkSettings(Strict):
    """Apache Spark, where one machine is not enough: needs the extra `spark` and Java 17 or later."""

    kind: Literal["spark"]
    master: Annotated[str, AfterValidator(as_value_error(_master))] = Field(
        "local[*]", description="Where Spark runs: local[*], local[2], spark://host:7077, yarn or k8s://https://host:443."
    )
    memory: Memory = Field("2GB", description="Memory of each executor, and of the driver.")
    options: Annotated[dict[str, OptionValue], AfterValidator(as_value_error(_options))] = Field(
        {}, description="Further settings of Spark, such as spark.sql.shuffle.partitions. No secrets: Spark takes them elsewhere."
    )

    @property
    def bytes(self) -> int | None:
        """No bound of its own: Spark shares work out among its executors and spills."""
        return None

    def open(self, spill: Path) -> SQLBackend:
        """Open the engine; temporary files and Spark's log go to `spill`. Raises ConfigError when it cannot be reached."""
        return connect_spark(master=self.master, memory=self.memory, options=self.options, spill=spill)


def _engine(told: Any) -> Any:
    # `engine: spark` says it all where the defaults do, and DuckDB needs no naming.
    if isinstance(told, str):
        return {"kind": told}
    return {"kind": "duckdb", **told} if isinstance(told, dict) else told


EngineSettings = Annotated[DuckDBSettings | SparkSettings, Field(discriminator="kind"), BeforeValidator(_engine)]
