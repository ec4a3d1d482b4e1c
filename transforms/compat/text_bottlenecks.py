"""Finds a trunk's text bottlenecks in a folder, and checks them."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from beam_retrain.transforms.core.compat.text_bottlenecks import (
  choose_module,
  is_module_of,
  module_of_file,
  parse_vector,
  text_name,
)
from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.io import files

_MAX_FILE_BYTES = 1 << 24
_SAMPLES_PER_FOLDER, _SAMPLES = 4, 64


@dataclasses.dataclass(frozen=True)
class Texts:
  """The text bottlenecks of one module in a folder.

  Attributes:
    folder: `retrain.py`'s `--bottleneck_dir`.
    module: as in file names; empty if they have none.
    is_of_trunk: whether the module is named like the trunk.
    fingerprint: of names, sizes and times, 64 hex digits; changed files make another request.
    first: some of their paths.
  """

  folder: str
  module: str
  is_of_trunk: bool
  count: int
  fingerprint: str
  first: tuple[str, ...]

  def path_of(self, key: str) -> str:
    return files.join(self.folder, text_name(key, self.module))

  def to_settings(self) -> dict[str, Any]:
    """Returns what determines the records' bytes, JSON values."""
    return {"path": self.folder, "module": self.module, "count": self.count, "fingerprint": self.fingerprint}


def find_texts(folder: str, prefixes: Iterable[str], handles: Sequence[str]) -> Texts:
  """Searches the class folders of a `--bottleneck_dir`; keeps few names.

  `prefixes` are the class folders, relative to the data set; `handles` are names of the trunk, the user's first.

  Raises:
    InputError: no text bottlenecks of these classes, or several modules, none of them the trunk's.
  """
  tallies: dict[str, _Tally] = {}
  for prefix in sorted(prefixes):
    firsts: dict[str, list[str]] = {}
    for name, size_bytes, modified_secs in _list_texts(files.join(folder, prefix)):
      if (module := module_of_file(name)) is None:
        continue
      tally = tallies.setdefault(module, _Tally())
      tally.add(f"{prefix}/{name}", size_bytes, modified_secs)
      first = firsts.setdefault(module, [])
      if len(first) < _SAMPLES_PER_FOLDER or name < first[-1]:
        bisect.insort(first, name)
        del first[_SAMPLES_PER_FOLDER:]
    for module, names in firsts.items():
      tallies[module].first += [files.join(folder, prefix, name) for name in names]
  if not tallies:
    raise InputError(
      f"--bottleneck_dir {folder} has no text bottlenecks (<class folder>/<image>_<module>.txt) of the classes in"
      f" {flag('input')}: give the folder that retrain.py wrote, or leave --bottleneck_dir out."
    )
  module = choose_module(tallies, handles, folder)
  tally = tallies[module]
  digest = f"{tally.total % (1 << 256):064x}"
  return Texts(folder, module, is_module_of(module, handles), tally.count, digest, tuple(tally.first[:_SAMPLES]))


@dataclasses.dataclass
class _Tally:
  """Files of one module; `total` sums hashes, independent of order."""

  count: int = 0
  total: int = 0
  first: list[str] = dataclasses.field(default_factory=list)

  def add(self, name: str, size_bytes: int, modified_secs: float) -> None:
    self.count += 1
    described = json.dumps([name, size_bytes, modified_secs]).encode()
    self.total += int.from_bytes(hashlib.sha256(described).digest(), "big")


def _list_texts(folder: str) -> Iterator[tuple[str, int, float]]:
  """Yields (name, bytes, modification time in seconds) of a folder's text files."""
  if not files.is_local(folder):
    for stat in files.match_in(folder, "*.txt"):
      yield files.split(stat.path)[1], stat.size_bytes, stat.modified_secs
  elif os.path.isdir(folder):
    with os.scandir(folder) as entries:
      for entry in entries:
        if entry.name.endswith(".txt") and entry.is_file():
          yield entry.name, entry.stat().st_size, entry.stat().st_mtime


def check_lengths(texts: Texts, dimensions: int) -> None:
  """Checks the length of some of the vectors.

  Raises InputError if none of the readable ones is as long as the trunk's.
  """
  other = None
  for path in texts.first:
    vector = read_vector(path)
    if vector is not None and len(vector) == dimensions:
      return
    if vector is not None and other is None:
      other = wrong_length(path, len(vector), dimensions)
  if other is not None:
    raise other


def wrong_length(path: str, length: int, dimensions: int) -> InputError:
  return InputError(
    f"{path} has {length:,} numbers, but the trunk gives {dimensions:,}: it is of another trunk. Give the trunk that"
    " the text bottlenecks were made with, or leave --bottleneck_dir out; if only this file is wrong, delete it."
  )


def read_vector(path: str) -> np.ndarray | None:
  """Returns float32 [n]; None if the file is damaged or unreadable."""
  try:
    stat = files.stat(path)
    return parse_vector(files.read_bytes(path)) if stat and stat.size_bytes <= _MAX_FILE_BYTES else None
  except OSError:
    return None
