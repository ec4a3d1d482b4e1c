"""`beam-retrain export`: parse, plan, write, report."""

from __future__ import annotations

from collections.abc import Sequence

from beam_retrain.pipelines.export.formats import FORMATS
from beam_retrain.pipelines.export.tables import NAMES, Table, find_tables
from beam_retrain.pipelines.jobs.locks import holds_output
from beam_retrain.pipelines.options.engine import check_paths
from beam_retrain.pipelines.requests.export import ExportRequest
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.output_folder import claim_folder, complete_folder
from beam_retrain.transforms.core.run.run_info import describe_run
from beam_retrain.transforms.core.system.locks import claim_of
from beam_retrain.transforms.io import files

STAGE = "export"

run = ExportRequest.run


@holds_output
def execute(request: ExportRequest) -> int:
  options = request.pipeline_options(check_engine=False)
  request = request.with_absolute_paths()
  request.validate_apart("input")
  check_paths(options, request.input, request.output)
  for path, rows in write(request, find_tables(request.input)).items():
    print(f"{files.shown(path)}: {rows:,} {'row' if rows == 1 else 'rows'}")
  return ExitCode.DONE


def write(request: ExportRequest, tables: Sequence[Table]) -> dict[str, int]:
  """Writes the tables; returns path -> rows."""
  info = describe_run(STAGE, {"input": request.input, "format": request.format}, request.to_argv())
  owned = [f"{name}.{extension}" for name in NAMES for extension in FORMATS]
  claim_folder(request.output, info, owned=owned, work_folder="", files=files)
  paths = {files.join(request.output, f"{table.name}.{request.format}"): table for table in tables}
  rows = {path: FORMATS[request.format](table, path) for path, table in paths.items()}
  complete_folder(request.output, files, claim_of(request.output))
  return rows
