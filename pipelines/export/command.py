"""`beam-retrain export`: parse, plan, write, report."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from beam_retrain.pipelines.export.formats import FORMATS
from beam_retrain.pipelines.export.tables import NAMES, Table, find_tables
from beam_retrain.pipelines.jobs.locks import holds_output
from beam_retrain.pipelines.options.request import JobRequest, check_paths
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.output_folder import claim_folder, complete_folder
from beam_retrain.transforms.core.run.run_info import describe_run
from beam_retrain.transforms.core.system.locks import claim_of
from beam_retrain.transforms.io import files

STAGE = "export"

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
  """The flags of `export`; see their help."""

  command: ClassVar[str] = STAGE
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EXAMPLE
  paths: ClassVar[tuple[str, ...]] = ("input", "output")

  input: str
  output: str
  format: str = "parquet"

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
      "--input", required=True, metavar="DIR", help="output of `run`, `bottlenecks` or `evaluate`, or a night"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new or empty folder, or an earlier export")
    parser.add_argument("--format", choices=tuple(FORMATS), help="of the files (default: %(default)s)")


make_parser = ExportRequest.make_parser


class Job(NamedTuple):
  request: ExportRequest
  tables: Sequence[Table]

  def write(self) -> dict[str, int]:
    """Writes the tables; returns path -> rows."""
    request, write = self.request, FORMATS[self.request.format]
    settings = {"input": request.input, "format": request.format}
    info = describe_run(STAGE, settings, request.to_argv())
    owned = [f"{name}.{extension}" for name in NAMES for extension in FORMATS]
    claim_folder(request.output, info, owned=owned, work_folder="", files=files)
    paths = {files.join(request.output, f"{table.name}.{request.format}"): table for table in self.tables}
    rows = {path: write(table, path) for path, table in paths.items()}
    complete_folder(request.output, files, claim_of(request.output))
    return rows


def run(argv: Sequence[str]) -> int:
  return execute(ExportRequest.parse(argv))


@holds_output
def execute(request: ExportRequest) -> int:
  for path, rows in plan(request).write().items():
    print(f"{files.shown(path)}: {rows:,} {'row' if rows == 1 else 'rows'}")
  return ExitCode.DONE


def plan(request: ExportRequest) -> Job:
  """Finds and checks the tables; changes nothing."""
  options = request.pipeline_options(check_engine=False)
  request = request.with_absolute_paths()
  request.validate_apart("input")
  check_paths(options, request.input, request.output)
  return Job(request, find_tables(request.input))
