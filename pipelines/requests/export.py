"""The flags of `export`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.transforms.core.run.flags import option

_DESCRIPTION = """\
Writes bottlenecks, predictions and figures as tables that pandas, DuckDB, BigQuery or a spreadsheet read.

reads    the finished output of `bottlenecks` or `evaluate`, both from that of `run`, or a night of `reevaluate`
writes   OUTPUT/bottlenecks.parquet: key, label, split, sha256, vector (float32, D numbers; in CSV columns 0 to D-1)
         OUTPUT/predictions.parquet: model, key, actual, predicted, correct, confidence (0..1), second, third, ...
         OUTPUT/metrics.parquet: one row a model: total, correct, accuracy with its 95 % interval, averages, ...
         OUTPUT/per_label.parquet: one row a model and label: support, precision, recall, f1, ...
         info.json and, last, COMPLETED

It holds one shard in memory. The same input gives the same bytes."""

_EXAMPLE = """\
example:
  beam-retrain export --input output/flowers --output flowers_tables
  duckdb -c "select actual, predicted, count(*) from 'flowers_tables/predictions.parquet' group by all"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportRequest(JobRequest):
  command: ClassVar[str] = "export"
  module: ClassVar[str] = "beam_retrain.pipelines.export.command"
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EXAMPLE
  paths: ClassVar[tuple[str, ...]] = ("input", "output")

  input: str = option(help="output of `run`, `bottlenecks` or `evaluate`, or a night", metavar="DIR")
  output: str = option(help="a new or empty folder, or an earlier export", metavar="DIR")
  format: str = option("parquet", "of the files (default: %(default)s)", choices=("parquet", "npz", "csv"))
