"""Finds images that have changed since `convert` wrote them.

`COMPLETED` of its output lists their SHA-256. People may move, delete and add images; but at a place that is listed,
only bytes that are listed may stand.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import COMPLETED_FILE, INFO_FILE
from beam_retrain.transforms.core.records.trained_on import TrainedOn, starts_of
from beam_retrain.transforms.core.run.contents import DamagedListError, Entry, read_list, read_stage
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.io import files

_TOGETHER = 1000


class _Listed(NamedTuple):
  """A folder's list: the digests, and the state of its file."""

  folder: str
  status: files.FileStat
  digests: TrainedOn


def find_change(path: str, key: str, encoded: bytes) -> str:
  """Returns what is wrong with a converted image, or "".

  The folder is that of the input, or the one above it, when one split is read alone.
  """
  if not path.endswith(key) or not (lists := _lists(path[: -len(key)])):
    return ""
  digest = hashlib.sha256(encoded).hexdigest()
  for folder, status, digests in lists:
    if digest in digests or not _may_be_listed(folder, path):
      continue
    if status == files.stat(files.join(folder, COMPLETED_FILE)):
      return (
        "has changed since `beam-retrain convert` wrote it: repeat that; if you changed it yourself, delete"
        f" {COMPLETED_FILE} and {INFO_FILE} in {folder}"
      )
    _lists.cache_clear()  # converted again, or the list deleted, while this process ran
    _listed_paths.cache_clear()
    return find_change(path, key, encoded)
  return ""


@functools.lru_cache(maxsize=4)
def _lists(root: str) -> list[_Listed]:
  """Returns the lists of an input and of the folder above it.

  `root` ends with a slash.
  """
  return list(filter(None, map(_read_list, (root[:-1], root[:-1].rpartition("/")[0]))))


def _read_list(folder: str) -> _Listed | None:
  """Returns None without a list of `convert`: 0.4 wrote none."""
  status = files.stat(files.join(folder, COMPLETED_FILE))
  if status is None or read_stage(folder, files) != "convert":
    return None
  return _Listed(folder, status, _read(folder, lambda entry: entry.sha256))


def _may_be_listed(folder: str, path: str) -> bool:
  """Returns whether a path is listed, or the list gone."""
  try:
    return _digest(path.removeprefix(f"{folder}/")) in _listed_paths(folder)
  except InputError:
    return True


@functools.lru_cache(maxsize=4)
def _listed_paths(folder: str) -> TrainedOn:
  return _read(folder, lambda entry: _digest(entry.path))


def _read(folder: str, digest: Callable[[Entry], str]) -> TrainedOn:
  try:
    blocks = [starts_of(list(map(digest, entries))) for entries in batched(read_list(folder, files), _TOGETHER)]
  except DamagedListError as error:
    path = files.join(folder, COMPLETED_FILE)
    raise InputError(f"{path} has changed since it was written: repeat the `beam-retrain convert`.") from error
  return TrainedOn.make(np.concatenate([np.empty(0, np.uint64), *blocks]))


def _digest(path: str) -> str:
  return hashlib.sha256(path.encode()).hexdigest()
