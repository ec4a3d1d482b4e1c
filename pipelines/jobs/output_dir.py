"""Output directories of Beam jobs, with shard reports to resume from."""

from __future__ import annotations

from collections.abc import Sequence

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER
from beam_retrain.transforms.core.run.output_dir import OutputDir
from beam_retrain.transforms.core.run.run_info import RunInfo, write_labels
from beam_retrain.transforms.io import files


def claim(
  output: str, info: RunInfo, *, owned: Sequence[str], shards_folder: str = "", has_labels: bool = True
) -> OutputDir:
  """Claims an output directory; writes `info.json` and, by default, `labels.txt`.

  Args:
    owned: see `OutputDir.claim`.
    shards_folder: name of the folder in `output` for the shard files; empty: `output` itself.
    has_labels: whether this stage writes the label list.

  Raises:
    InputError: the directory holds something that this stage did not write.
  """
  claimed = OutputDir(output, files)
  claimed.claim(info, owned=owned, work_folder=f"{shards_folder}/{REPORTS_FOLDER}".lstrip("/"))
  if has_labels:
    write_labels(output, info.labels, files)
  return claimed


def find_earlier(output: str, stage: str) -> RunInfo | None:
  """See `OutputDir.find_earlier`."""
  return OutputDir(output, files).find_earlier(stage)


def validate_apart(input_folder: str, output: str, name: str = "output") -> None:
  """Checks that a stage does not write into its input.

  Args:
    name: the flag of `output`.
  """
  if files.overlap(input_folder, output):
    raise InputError(f"{flag(name)} {output} overlaps with {flag('input')} {input_folder}: give a folder of its own.")
