"""The engine that runs the expressions: DuckDB, embedded."""

from pathlib import Path

import ibis
from ibis.backends.duckdb import Backend


def connect(*, memory: str, threads: int, spill: Path) -> Backend:
    """Open an in-memory DuckDB that reads and computes in UTC.

    `memory` bounds its buffers (for example `2GB`); what does not fit is spilled below `spill`, which is made only when needed.
    """
    engine = ibis.duckdb.connect(memory_limit=memory, threads=threads, temp_directory=str(spill))
    engine.raw_sql("SET TimeZone = 'UTC'")
    # DuckDB draws its progress bar on stdout, which belongs to results.
    engine.raw_sql("SET enable_progress_bar = false")
    return engine


def confine(engine: Backend, files: list[str]) -> None:
    """Let the engine read `files` and nothing else from now on.

    The SQL of a source is parsed and checked before it runs; this is the second lock: whatever slips through can neither read
    nor write another file, load an extension, or undo the lock.
    """
    allowed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    engine.raw_sql(f"SET allowed_paths = [{allowed}]")
    engine.raw_sql("SET enable_external_access = false")
    engine.raw_sql("SET lock_configuration = true")
