"""The life of a stage's output folder: claimed, worked in, finished.

`info.json` is written first and says whose the folder is; `COMPLETED` is written last. A run that was killed finds its
own `info.json` and goes on; another request into the same folder replaces the old output whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import (
  COMPLETED_FILE,
  INFO_FILE,
  LABELS_FILE,
  QUARANTINE_FILE,
  STATS_FILE,
)
from beam_retrain.transforms.core.run.run_info import RunInfo, find_info
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import REPORTS_FOLDER

_COMMON_FILES = (COMPLETED_FILE, STATS_FILE, QUARANTINE_FILE, LABELS_FILE)


def claim(output: str, info: RunInfo, *, owned: Sequence[str], shards_folder: str = "") -> RunInfo:
  """Makes `output` this run's: goes on where a killed run of the same request was, else starts empty.

  Args:
    output: the folder that the user gave.
    info: of this run; written into the folder.
    owned: names (or glob patterns) directly in `output` that this stage writes, besides the common ones. Nothing else
      is ever deleted.
    shards_folder: name of the folder in `output` that the shard files go to; empty: `output` itself.

  Returns:
    `info`.

  Raises:
    InputError: the folder holds something that this stage did not write.
  """
  found = find_earlier(output, info.stage)
  unfinished = not files.exists(files.join(output, COMPLETED_FILE))
  if found and not (unfinished and found.request == info.request):
    _clear(output, owned)
  files.make_folder(files.join(output, *filter(None, [shards_folder]), REPORTS_FOLDER))
  files.write_text(files.join(output, INFO_FILE), info.to_json())
  return info


def find_earlier(output: str, stage: str) -> RunInfo | None:
  """Returns the `info.json` of an earlier run of a stage into a folder, finished or not; None where there was none.

  Raises:
    InputError: the folder holds something that this stage did not write.
  """
  if files.is_local(output) and os.path.isfile(output):
    raise InputError(f"{output} is a file: give a new or empty folder as --output.")
  found = find_info(output, files)
  if found and found.stage != stage:
    raise InputError(f"{output} holds the output of `beam-retrain {found.stage}`: give another --output.")
  if not found and not files.is_empty(output):
    raise InputError(
      f"{output} is not empty and was not written by beam-retrain: give a new or empty folder as --output."
    )
  return found


def refuse_overlap(input_folder: str, output: str, flag: str = "--output") -> None:
  """Checks that a stage does not write into what it reads; `flag` is what the user gave `output` with.

  Raises:
    InputError: `output` is the input folder, or lies in it, or around it.
  """
  if files.overlap(input_folder, output):
    raise InputError(f"{flag} {output} overlaps with --input {input_folder}: give a folder of its own.")


def _clear(output: str, owned: Sequence[str]) -> None:
  # The marker goes first: from here on no reader takes the folder for finished.
  for pattern in owned:
    if "/" in pattern or pattern.strip(".*") == "":
      raise ValueError(f"{pattern!r} is no name directly in a folder")
  for pattern in (*_COMMON_FILES, REPORTS_FOLDER, *owned):
    if "*" in pattern:
      files.delete(stat.path for stat in files.match_in(output, pattern))
    else:
      files.delete([files.join(output, pattern)])
