"""Batches on Spark: functions are broadcast once and run by Python on the executors, which write the Parquet files of a night."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import from_arrow_schema

from pipeline.columns import without_date
from pipeline.tables import Files


@dataclass(frozen=True)
class OnSpark:
    """Rows on a cluster; see `pipeline.batches.Batches`."""

    rows: DataFrame

    def names(self) -> Sequence[str]:
        """Give the names of the columns."""
        return self.rows.columns

    def map(self, function: Callable[[pa.Table], pa.Table], schema: pa.Schema) -> "OnSpark":
        """Have the executors call the function with each of Spark's batches of rows (`spark.sql.execution.arrow.*`)."""
        sent = self.rows.sparkSession.sparkContext.broadcast(function)

        def each(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield from sent.value(pa.Table.from_batches([batch])).combine_chunks().to_batches()

        return OnSpark(self.rows.mapInArrow(each, from_arrow_schema(schema)))

    def kept(self) -> "OnSpark":
        """Let executors keep the rows once they are computed; those of an executor that is lost are computed again."""
        return OnSpark(self.rows.persist())

    def known(self, name: str) -> np.ndarray:
        """Bring a column without its nulls to the driver."""
        column = self.rows.select(f"`{name}`").toArrow()[name]
        return np.asarray(column.drop_null().to_numpy())

    def filled(self, name: str) -> int:
        """Have the executors count the rows in which a column is not null."""
        return self.rows.where(self.rows[f"`{name}`"].isNotNull()).count()

    def here(self, names: Sequence[str]) -> pa.Table:
        """Bring columns to the driver."""
        return self.rows.select(*(f"`{name}`" for name in names)).toArrow()

    def staged(self, schema: pa.Schema, as_of: date, folder: Path) -> Files:  # noqa: ARG002 - the date is in the files' place
        """Have the executors write Parquet files into the folder, which they see under the same path."""
        self.rows.select(*(f"`{name}`" for name in without_date(schema).names)).write.parquet(f"file://{folder.resolve()}")
        return Files(schema, tuple(sorted(folder.glob("*.parquet"))))
