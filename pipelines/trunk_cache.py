"""The cache of trunks on the machine that submits: read, frozen and prepared once, and found again by every later run.

  trunks/<fingerprint of the trunk itself>/saved_model/           as `Trunk.save` writes it
  trunks/<the same>/<runtime>-<precision>[-<calibration>]-<versions>/  prepared, see transforms/core/prepared.py
  sources/<digest>.json                                           what the user named -> the trunk's card

Where it is: BEAM_RETRAIN_CACHE_DIR, else `beam-retrain` in XDG_CACHE_HOME, else ~/.cache/beam-retrain. It may be
deleted at any time. Every entry is written beside its place and renamed, so that nobody sees half of one; who comes
second with the same entry takes the first one's. An entry whose files are not what they were is made anew.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

_SUMS_FILE = "cache.json"  # of an entry: relative path -> SHA-256
_OVERRIDE = "BEAM_RETRAIN_CACHE_DIR"


def find(name: str) -> str:
  """Returns the folder of an entry, or "" where it is not there or is damaged."""
  place = _place(name)
  return place if _is_whole(place) else ""


def obtain(name: str, write: Callable[[str], None]) -> str:
  """Returns the folder of an entry, made where it is not there or is damaged.

  Args:
    name: of the entry, with slashes.
    write: fills the folder that it is given, which is empty.
  """
  if found := find(name):
    return found
  place = _place(name)
  os.makedirs(os.path.dirname(place), exist_ok=True)
  made = tempfile.mkdtemp(prefix=".making-", dir=os.path.dirname(place))
  try:
    write(made)
    with open(os.path.join(made, _SUMS_FILE), "w", encoding="utf-8") as file:
      json.dump(_sums(made), file, indent=2)
    _put(made, place)
  finally:
    shutil.rmtree(made, ignore_errors=True)
  return place


def copy_entry(entry: str, target: str) -> None:
  """Copies what is in an entry's folder to another, which is not there yet."""
  shutil.copytree(entry, target, ignore=lambda parent, _: [_SUMS_FILE] if parent == entry else [])


def read_source(digest: str) -> Any:
  """Returns what `write_source` kept, or None."""
  try:
    with open(_source_file(digest), encoding="utf-8") as file:
      return json.load(file)
  except (OSError, ValueError):
    return None


def write_source(digest: str, card: Mapping[str, Any]) -> None:
  path = _source_file(digest)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False, encoding="utf-8") as file:
    json.dump(dict(card), file, indent=2)
  os.replace(file.name, path)


def _place(name: str) -> str:
  return os.path.join(folder(), *name.split("/"))


def _source_file(digest: str) -> str:
  return os.path.join(folder(), "sources", f"{digest}.json")


def _put(made: str, place: str) -> None:
  """Renames a finished folder to its place, unless somebody else's has got there first."""
  try:
    os.rename(made, place)
  except OSError:
    if _is_whole(place):
      return
    # Damaged: out of the way at once, deleted afterwards.
    aside = tempfile.mkdtemp(prefix=".damaged-", dir=os.path.dirname(place))
    with contextlib.suppress(FileNotFoundError):  # another process has done it a moment ago
      os.rename(place, os.path.join(aside, "entry"))
    try:
      os.rename(made, place)
    except OSError:
      if not _is_whole(place):
        raise
    finally:
      shutil.rmtree(aside, ignore_errors=True)


def _is_whole(place: str) -> bool:
  try:
    with open(os.path.join(place, _SUMS_FILE), encoding="utf-8") as file:
      return bool(json.load(file) == _sums(place))
  except (OSError, ValueError):
    return False


def _sums(entry: str) -> dict[str, str]:
  sums = {}
  for parent, folders, names in os.walk(entry):
    folders.sort()
    for name in sorted(names):
      path = os.path.join(parent, name)
      if os.path.relpath(path, entry) != _SUMS_FILE:
        with open(path, "rb") as file:
          sums[os.path.relpath(path, entry)] = hashlib.file_digest(file, "sha256").hexdigest()
  return sums


def folder() -> str:
  """Returns the cache's folder, which is there and can be written to."""
  return _check_root(_root())


def _root() -> str:
  if override := os.environ.get(_OVERRIDE):
    return os.path.abspath(override)
  return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "beam-retrain")


@functools.cache
def _check_root(root: str) -> str:
  """Returns the folder, or one for this process alone where nothing can be written to it."""
  try:
    os.makedirs(root, exist_ok=True)
    with tempfile.TemporaryFile(dir=root):
      return root
  except OSError as error:
    temporary = tempfile.mkdtemp(prefix="beam-retrain-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    print(
      f"no trunk is kept for the next run: {root} cannot be written ({error.strerror}); {_OVERRIDE} names another.",
      file=sys.stderr,
    )
    return temporary
