"""Batches: rows on which a function runs a batch at a time, here or on Spark's executors; and how they get into the tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import count
from pathlib import Path
from typing import Protocol

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from ibis.backends.sql import SQLBackend

from features.engines import beside, in_file, keep, streamed
from pipeline.columns import AS_OF, without_date
from pipeline.tables import Files

# Users in memory at a time, beside their features; of rows that are less wide, as many more as hold this many values. What is asked
# of each batch by SQL is planned for each batch.
CHUNK, VALUES = 25_000, 6_400_000
# Bytes of a table that is too large to be written from memory.
LARGE = 2**30
_tables = count()
# What is kept of batches is called so, and a number.
HELD = "batches_"


class Batches(Protocol):
    """Rows with a schema; whatever is made from them stays where they are."""

    def names(self) -> Sequence[str]:
        """Give the names of the columns."""

    def map(self, function: Callable[[pa.Table], pa.Table], schema: pa.Schema) -> "Batches":
        """Give what a function of rows, whatever rows come together, makes of each batch: a table of `schema`."""

    def kept(self) -> "Batches":
        """Compute the rows once, however often they are read."""

    def known(self, name: str) -> np.ndarray:
        """Bring a column without its nulls here, in any order."""

    def filled(self, name: str) -> int:
        """Count the rows in which a column is not null."""

    def here(self, names: Sequence[str]) -> pa.Table:
        """Bring columns here, rows in any order."""

    def staged(self, schema: pa.Schema, as_of: date, folder: Path) -> "pa.Table | Files":
        """Get ready for a commit of the night: rows in the order of `schema`, in memory or in files in `folder`."""


@dataclass(frozen=True)
class Here:
    """Rows in this process; what is made from more than a batch of them is in files in `folder`, where one is given."""

    rows: pa.Table
    folder: Path | None = None

    def names(self) -> Sequence[str]:
        """Give the names of the columns."""
        return list(self.rows.column_names)

    def map(self, function: Callable[[pa.Table], pa.Table], schema: pa.Schema) -> "Here":
        """Call the function with so many rows at a time that memory is bounded."""
        size = max(CHUNK, VALUES // max(1, len(self.rows.column_names)))
        parts = (function(self.rows.slice(start, size)) for start in range(0, len(self.rows), size))
        if self.folder is None or len(self.rows) <= size:
            return replace(self, rows=pa.concat_tables([schema.empty_table(), *parts]))
        return replace(self, rows=in_file(self.folder, schema, parts))

    def kept(self) -> "Here":
        """Do nothing: they are."""
        return self

    def known(self, name: str) -> np.ndarray:
        """Give a column without its nulls."""
        return np.asarray(self.rows[name].drop_null().to_numpy())

    def filled(self, name: str) -> int:
        """Count the rows in which a column is not null."""
        return len(self.rows) - int(self.rows[name].null_count)

    def here(self, names: Sequence[str]) -> pa.Table:
        """Give columns."""
        return self.rows.select(list(names))

    def staged(self, schema: pa.Schema, as_of: date, folder: Path) -> pa.Table | Files:
        """Give the table that is to be written, of a large one a file: Delta's writer holds all of it, and most of it twice."""
        plain = without_date(schema)
        rows = self.rows.select(plain.names).cast(plain)
        if rows.nbytes < LARGE:
            return rows.append_column(AS_OF, pa.array([as_of] * len(rows), AS_OF.type)).select(schema.names)
        folder.mkdir(parents=True)
        with pq.ParquetWriter(folder / "rows.parquet", plain) as writer:
            for batch in rows.to_batches(max_chunksize=CHUNK):
                writer.write_batch(batch)
        return Files(schema, (folder / "rows.parquet",))


def load(engine: SQLBackend, rows: pa.Table, name: str) -> ir.Table:
    """Give rows to the engine: as they are, on Spark as a file that executors see where the driver does."""
    if isinstance(engine, Backend):
        return ibis.memtable(rows)
    from features.spark_files import write_for_spark

    return write_for_spark(engine, rows, name)


def batches(engine: SQLBackend, table: ir.Table) -> Batches:
    """Compute a table with a `user_id` where its engine is: in order in this process, or on Spark's executors."""
    if isinstance(engine, Backend):
        return Here(streamed(engine, table, "user_id", CHUNK), beside(engine))
    from pipeline.spark_batches import OnSpark

    held = keep(engine, table, f"{HELD}{next(_tables)}").get_name()
    return OnSpark(engine.raw_sql(f"TABLE `{held}`"))
