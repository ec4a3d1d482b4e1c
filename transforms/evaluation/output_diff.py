"""Compares two finished output folders, file by file.

| file             | compared                                                                                       |
|------------------|------------------------------------------------------------------------------------------------|
| *.tfrecord       | record by record, feature by feature                                                           |
| *.csv            | row by row, without the column `Execution time`                                                |
| *.json           | value by value, without command, versions, paths, times, ...                                   |
| *.npz            | array by array                                                                                 |
| saved_model.pb   | operations and their numbers; TensorFlow names functions differently each time                 |
| all others       | byte by byte                                                                                   |

Ignored: COMPLETED (a list of the others), config.toml (flags), fingerprint.pb (random), logs/ (times), report.html,
junit.xml and metrics.prom (made from compared files), prepared/ (made from the trunk, which info.json identifies),
leaks.refused.csv (of a rejected input), and hidden files.

A comparison takes two binary files and returns the first difference, or None. It calls `count` with the number of
records, rows or whole files compared.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from google.protobuf.message import DecodeError

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.predictions import EXECUTION_TIME
from beam_retrain.transforms.core.records.example import decode_example
from beam_retrain.transforms.core.records.schema import COMPLETED_FILE, CONFIG_FILE, INFO_FILE, KEY, REFUSED_LEAKS_FILE
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.run.output_folder import find_info, read_info, stages_in
from beam_retrain.transforms.core.runtimes.prepared import PREPARED_FOLDER
from beam_retrain.transforms.io import files

Count = Callable[[int], None]

# Entries that say how an output was made, not what is in it. Whole paths, because a label may be called `input`.
_MAY_DIFFER = frozenset(
  {
    # info.json
    *("baseline", "command", "execution", "lists_files", "model", "models", "night", "request", "versions"),
    *("trunk.bottlenecks_request", "trunk.handle"),
    *("settings.input", "settings.inputs", "settings.model_fingerprint", "settings.models", "settings.reuse"),
    # metrics.json; `trunk` is what the user called it
    *("bottlenecks", "candidate.comparison.baseline", "comparison.baseline", "predictions_sha256", "trunk"),
    *("tflite.float.file", "tflite.int8.file"),
    # trunk.json
    *("handle", "saved_model_sha256"),
  }
)
_MADE_FROM_OTHERS = ("report.html", "junit.xml", "metrics.prom")
_LEFT_OUT = frozenset(
  {COMPLETED_FILE, CONFIG_FILE, "fingerprint.pb", "logs", *_MADE_FROM_OTHERS, PREPARED_FOLDER, REFUSED_LEAKS_FILE}
)
_CHUNK_BYTES = 1 << 20
_SHOWN = 60


def check_comparable(first: str, second: str) -> None:
  """Raises InputError unless both folders are finished outputs of the same stage."""
  stages = []
  for folder in (first, second):
    info = find_info(folder, files)
    if info is None:
      if of_run := stages_in(folder, files):
        shown = files.shown(folder)
        raise InputError(
          f"{shown} was written by `beam-retrain run`: give an output in it, such as {shown}/{of_run[-1]}."
        )
      raise InputError(f"{folder} has no {INFO_FILE} of beam-retrain: give a folder that one of its commands wrote.")
    read_info(folder, info.stage, files)
    stages.append(info.stage)
  if len(set(stages)) > 1:
    raise InputError(
      f"{first} was written by `beam-retrain {stages[0]}`, {second} by `beam-retrain {stages[1]}`: give two outputs of"
      " the same command."
    )


def compare_outputs(first: str, second: str, count: Count) -> tuple[int, str | None]:
  """Returns the number of files compared and the first difference.

  `info.json` comes last: other settings are reported only if all other files are equal. That trunks of two kinds made
  them, as `--precision auto` may choose, explains a difference.
  """
  names, others = _list(first), _list(second)
  for number, name in enumerate(sorted(names | others, key=lambda name: (name == INFO_FILE, name))):
    if name not in names or name not in others:
      return number, f"{name} is only in the {'first' if name in names else 'second'}"
    paths = (files.join(folder, *name.split("/")) for folder in (first, second))
    compare = next((compare for suffix, compare in _BY_SUFFIX.items() if name.endswith(suffix)), difference_of_bytes)
    with files.open_to_read(next(paths)) as file, files.open_to_read(next(paths)) as other:
      difference = compare(file, other, name, count)
    if difference:
      return number + 1, f"{name}: {difference}{_of_two_kinds(first, second)}"
  return len(names), None


def _of_two_kinds(first: str, second: str) -> str:
  ours, theirs = (str(info.trunk.variant) if (info := find_info(folder, files)) else "" for folder in (first, second))
  made = f"; the first was made in {ours}, the second in {theirs}: give --precision and --runtime to both"
  return made if ours != theirs else ""


def _list(folder: str) -> set[str]:
  """Returns the relative names of the files to compare."""
  names = (stat.path.removeprefix(folder).lstrip("/") for stat in files.list_tree(folder))
  return {name for name in names if not any(part.startswith(".") or part in _LEFT_OUT for part in name.split("/"))}


def difference_of_records(first: BinaryIO, second: BinaryIO, name: str, count: Count) -> str | None:
  """Compares TFRecord files, feature by feature."""
  pairs = itertools.zip_longest(read_records(first, name), read_records(second, name))
  for number, (ours, theirs) in enumerate(pairs):
    count(1)
    if ours == theirs:
      continue
    if ours is None or theirs is None:
      return f"record {number}{_key_of(ours or theirs)} is only in the {'second' if ours is None else 'first'}"
    if words := _difference_of_features(ours, theirs):
      return f"record {number}{_key_of(ours)}: {words}"
  return None


def _key_of(record: bytes) -> str:
  try:
    return f" ({decode_example(record, (KEY,))[KEY][0].decode()})"
  except (DecodeError, KeyError, UnicodeDecodeError):
    return ""


def _difference_of_features(ours: bytes, theirs: bytes) -> str | None:
  try:
    features, others = decode_example(ours), decode_example(theirs)
  except DecodeError:
    return "its bytes differ"
  # The key first: if it differs, these are different images.
  for name in sorted(features.keys() | others.keys(), key=lambda name: (name != KEY, name)):
    if name not in features or name not in others:
      return f"{name} is only in the {'first' if name in features else 'second'}"
    values, other_values = features[name], others[name]
    if len(values) != len(other_values):
      return f"{name} has {len(values)} values, in the second {len(other_values)}"
    for place, (value, other) in enumerate(zip(values, other_values, strict=True)):
      if value != other and not (value != value and other != other):  # NaN is NaN
        at = f"[{place}]" if len(values) > 1 else ""
        return f"{name}{at} is {_shown(value)}, in the second {_shown(other)}"
  return None  # the same features in another order


def difference_of_rows(first: BinaryIO, second: BinaryIO, name: str, count: Count) -> str | None:
  """Compares CSV files cell by cell, except `Execution time`."""
  rows, others = _rows(first), _rows(second)
  header, other_header = next(rows, []), next(others, [])
  if header != other_header:
    return f"the columns are {','.join(header)}, in the second {','.join(other_header)}"
  for number, (row, other) in enumerate(itertools.zip_longest(rows, others), start=1):
    count(1)
    if row is None or other is None:
      which, cells = ("second", other) if row is None else ("first", row)
      return f"row {number} ({(cells or [''])[0]}) is only in the {which}"
    if len(row) != len(other):
      return f"row {number} ({row[0]}) has {len(row)} cells, in the second {len(other)}"
    for place, (cell, other_cell) in enumerate(zip(row, other, strict=True)):
      column = header[place] if place < len(header) else f"cell {place + 1}"
      if cell != other_cell and column != EXECUTION_TIME:
        return f"row {number} ({row[0]}): {column} is {_shown(cell)}, in the second {_shown(other_cell)}"
  return None


def _rows(file: BinaryIO) -> Iterator[list[str]]:
  return csv.reader(io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline=""))


def difference_of_json(first: BinaryIO, second: BinaryIO, name: str, count: Count) -> str | None:
  """Compares JSON files, except commands, paths and versions."""
  try:
    values, others = json.loads(first.read()), json.loads(second.read())
  except ValueError as error:
    raise InputError(f"{name} is not JSON ({error}): make its folder again.") from error
  count(1)
  return _difference_of_values(values, others, "")


def _difference_of_values(value: Any, other: Any, path: str) -> str | None:
  if isinstance(value, dict) and isinstance(other, dict):
    for name in sorted(value.keys() | other.keys()):
      inner = f"{path}.{name}" if path else name
      if inner in _MAY_DIFFER and not (inner == "trunk" and isinstance(value.get(name), dict)):
        continue
      if name not in value or name not in other:
        return f"{inner} is only in the {'first' if name in value else 'second'}"
      if words := _difference_of_values(value[name], other[name], inner):
        return words
    return None
  if isinstance(value, list) and isinstance(other, list) and len(value) == len(other):
    for place, (one, another) in enumerate(zip(value, other, strict=True)):
      if words := _difference_of_values(one, another, f"{path}[{place}]"):
        return words
    return None
  return None if value == other else f"{path} is {_shown(value)}, in the second {_shown(other)}"


def difference_of_arrays(first: BinaryIO, second: BinaryIO, name: str, count: Count) -> str | None:
  """Compares .npz files array by array."""
  arrays, others = _arrays(first, name), _arrays(second, name)
  for array_name in sorted(arrays.keys() | others.keys()):
    count(1)
    array, other = arrays.get(array_name), others.get(array_name)
    if array is None or other is None:
      return f"{array_name} is only in the {'second' if array is None else 'first'}"
    if (array.shape, array.dtype) != (other.shape, other.dtype):
      return f"{array_name} is {array.dtype}{list(array.shape)}, in the second {other.dtype}{list(other.shape)}"
    if array.tobytes() != other.tobytes():
      # Bytes, because `!=` treats NaN and -0 specially.
      rows = np.frombuffer(array.tobytes(), np.uint8).reshape(array.size, -1)
      differs = (rows != np.frombuffer(other.tobytes(), np.uint8).reshape(array.size, -1)).any(axis=1)
      place = int(differs.argmax())
      return f"{array_name}[{place}] is {array.flat[place]}, in the second {other.flat[place]}"
  return None


def _arrays(file: BinaryIO, name: str) -> Mapping[str, np.ndarray]:
  try:
    with np.load(io.BytesIO(file.read()), allow_pickle=False) as archive:
      return {array: archive[array] for array in archive.files}
  except Exception as error:  # damage raises many types of numpy, zipfile and zlib
    raise InputError(f"{name} is damaged ({error}): make its folder again.") from error


def difference_of_graphs(first: BinaryIO, second: BinaryIO, name: str, count: Count) -> str | None:
  """Compares saved_model.pb files by their operations and constants.

  TensorFlow renames functions and files each time, so that the bytes of equal graphs differ.
  """
  data, other_data = first.read(), second.read()
  count(1)
  if data == other_data:
    return None
  operations, others = _operations(data, name), _operations(other_data, name)
  for operation in sorted((operations - others) | (others - operations)):
    kind, _ = operation
    return f"the graph has {operations[operation]} {kind} of one kind, in the second {others[operation]}"
  return None


def _operations(data: bytes, name: str) -> Counter[tuple[str, bytes]]:
  """Counts (operation, digest of its constant)."""
  from tensorflow.core.protobuf import saved_model_pb2  # loads TensorFlow

  model = saved_model_pb2.SavedModel()
  try:
    model.ParseFromString(data)
  except DecodeError as error:
    raise InputError(f"{name} is damaged: make its folder again.") from error
  counts: Counter[tuple[str, bytes]] = Counter()
  for graph in model.meta_graphs:
    functions = (function.node_def for function in graph.graph_def.library.function)
    for node in itertools.chain(graph.graph_def.node, *functions):
      tensor = node.attr["value"].tensor if node.op == "Const" else None
      numbers = b"" if tensor is None or tensor.string_val else tensor.SerializeToString(deterministic=True)
      counts[node.op, hashlib.sha256(numbers).digest()] += 1
  return counts


def difference_of_bytes(first: BinaryIO, second: BinaryIO, name: str, count: Count) -> str | None:
  position = 0
  count(1)
  while True:
    data, other = first.read(_CHUNK_BYTES), second.read(_CHUNK_BYTES)
    if data != other:
      same = next((place for place, pair in enumerate(zip(data, other, strict=False)) if pair[0] != pair[1]), None)
      if same is None:
        which, longer = ("first", "second") if len(data) < len(other) else ("second", "first")
        return f"the {which} ends at byte {position + min(len(data), len(other))}, the {longer} goes on"
      return f"byte {position + same} is 0x{data[same]:02x}, in the second 0x{other[same]:02x}"
    if not data:
      return None
    position += len(data)


def _shown(value: Any) -> str:
  if isinstance(value, bytes):
    value = value.decode(errors="backslashreplace")
  text = str(value) if isinstance(value, float | np.floating) else repr(value)
  return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


_BY_SUFFIX: Mapping[str, Callable[[BinaryIO, BinaryIO, str, Count], str | None]] = {
  ".tfrecord": difference_of_records,
  ".csv": difference_of_rows,
  ".json": difference_of_json,
  ".npz": difference_of_arrays,
  "saved_model.pb": difference_of_graphs,
}
