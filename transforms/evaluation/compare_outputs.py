"""Compares two finished output folders, file by file.

| file             | compared                                                                                       |
|------------------|------------------------------------------------------------------------------------------------|
| *.tfrecord       | record by record, feature by feature                                                           |
| *.csv            | row by row, without the column `Execution time`                                                |
| *.json           | value by value, without command, versions, paths, times, ...                                   |
| *.npz            | array by array                                                                                 |
| saved_model.pb   | operations and their numbers; TensorFlow names functions differently each time                 |
| all others       | byte by byte                                                                                   |

Ignored: fingerprint.pb (random), logs/ (times), report.html and junit.xml (made from compared files), prepared/ (made
from the trunk, which info.json identifies), leaks.refused.csv (of a rejected input), and hidden files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import INFO_FILE, REFUSED_LEAKS_FILE
from beam_retrain.transforms.core.run.run_info import find_info, read_info
from beam_retrain.transforms.core.runtimes.prepared import PREPARED_FOLDER
from beam_retrain.transforms.core.verify.output_diff import (
  Count,
  difference_of_arrays,
  difference_of_bytes,
  difference_of_graphs,
  difference_of_json,
  difference_of_records,
  difference_of_rows,
)
from beam_retrain.transforms.io import files

_LEFT_OUT = frozenset({"fingerprint.pb", "logs", "report.html", "junit.xml", PREPARED_FOLDER, REFUSED_LEAKS_FILE})
_BY_SUFFIX = {
  ".tfrecord": difference_of_records,
  ".csv": difference_of_rows,
  ".json": difference_of_json,
  ".npz": difference_of_arrays,
  "saved_model.pb": difference_of_graphs,
}


class Compared(NamedTuple):
  """Files compared until the first difference, and that difference, if any."""

  files: int
  difference: str | None


def check_comparable(first: str, second: str) -> None:
  """Checks that two folders are finished outputs of the same stage.

  Raises:
    InputError: they are not.
  """
  stage = _stage(first)
  read_info(first, stage, files)
  other = _stage(second)
  if other != stage:
    raise InputError(
      f"{first} was written by `beam-retrain {stage}`, {second} by `beam-retrain {other}`: give two outputs of the"
      " same command."
    )
  read_info(second, stage, files)


def _stage(folder: str) -> str:
  info = find_info(folder, files)
  if info is None:
    raise InputError(f"{folder} has no {INFO_FILE} of beam-retrain: give a folder that one of its commands wrote.")
  return info.stage


def compare_outputs(first: str, second: str, count: Count) -> Compared:
  """Returns the first difference of two finished folders.

  `info.json` comes last: other settings are reported only if all other files are equal.

  Args:
    count: called with the numbers of compared records, rows and files.

  Raises:
    InputError: a file is damaged.
  """
  paths, others = _list(first), _list(second)
  for number, name in enumerate(sorted(paths | others, key=lambda name: (name == INFO_FILE, name))):
    if name not in paths or name not in others:
      return Compared(number, f"{name} is only in the {'first' if name in paths else 'second'}")
    compare = _comparison_of(name)
    with (
      files.open_to_read(files.join(first, *name.split("/"))) as file,
      files.open_to_read(files.join(second, *name.split("/"))) as other,
    ):
      difference = compare(file, other, name, count)
    if difference:
      return Compared(number + 1, f"{name}: {difference}")
  return Compared(len(paths), None)


def _comparison_of(name: str) -> Callable[..., str | None]:
  return next((compare for suffix, compare in _BY_SUFFIX.items() if name.endswith(suffix)), difference_of_bytes)


def _list(folder: str) -> set[str]:
  """Returns the relative names of the files to compare."""
  names = (stat.path.removeprefix(folder).lstrip("/") for stat in files.list_tree(folder))
  return {name for name in names if not any(part.startswith(".") or part in _LEFT_OUT for part in name.split("/"))}
