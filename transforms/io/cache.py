"""The cache of trunks on the machine that submits: read, frozen and prepared once, and found again by every later run.

  trunks/<fingerprint of the trunk itself>/saved_model/           as `Trunk.save` writes it
  trunks/<the same>/<runtime>-<precision>[-<calibration>]-<versions>/  prepared, see core/runtimes/prepared.py
  sources/<digest>.json                                           what the user named -> the trunk's card

Where it is: BEAM_RETRAIN_CACHE_DIR, else `beam-retrain` in XDG_CACHE_HOME, else ~/.cache/beam-retrain. It may be
deleted at any time. Every entry is written beside its place and renamed, so that nobody sees half of one; who comes
second with the same entry takes the first one's. An entry whose files are not what they were is made anew. What
processes that were killed have left is removed a day later, when a new entry is made.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import glob
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.io import files

_SUMS_FILE = "cache.json"  # of an entry: relative path -> SHA-256
_OVERRIDE = "BEAM_RETRAIN_CACHE_DIR"
_MAKING, _DAMAGED = ".making-", ".damaged-"  # how the names begin of what is on its way
_LEFT_AFTER_SECS = 24 * 60 * 60.0  # nobody is that long at making an entry


def find(name: str) -> str:
  """Returns the folder of an entry, or "" where it is not there or is damaged."""
  place = _place(name)
  return place if _is_intact(place) else ""


def get_or_create(name: str, write: Callable[[str], None]) -> str:
  """Returns the folder of an entry, made where it is not there or is damaged; for this process alone where the cache
  cannot take it, being full or somebody else's.

  Args:
    name: of the entry, with slashes.
    write: fills the folder that it is given, which is empty.
  """
  if found := find(name):
    return found
  place = _place(name)
  try:
    return _make(place, write)
  except OSError as error:
    if place == (instead := os.path.join(_own_root(), *name.split("/"))):
      raise
    _report_not_kept(folder(), error.strerror or str(error))
    return instead if _is_intact(instead) else _make(instead, write)


def _make(place: str, write: Callable[[str], None]) -> str:
  os.makedirs(os.path.dirname(place), exist_ok=True)
  _remove_left()
  made = tempfile.mkdtemp(prefix=_MAKING, dir=os.path.dirname(place))
  entry = os.path.join(made, "entry")
  try:
    os.mkdir(entry)  # to be read by whom the user lets read: what is temporary is nobody else's
    write(entry)
    files.write_text(os.path.join(entry, _SUMS_FILE), json.dumps(_sums(entry), indent=2))
    _put(entry, place)
  finally:
    shutil.rmtree(made, ignore_errors=True)
  return place


def _remove_left() -> None:
  """Removes what was on its way when a process was killed. Several may do so at once: what is gone is no fault."""
  for prefix in (_MAKING, _DAMAGED):
    for path in glob.iglob(os.path.join(glob.escape(folder()), "trunks", "*", f"{prefix}*")):
      with contextlib.suppress(OSError):
        if time.time() - os.stat(path).st_mtime > _LEFT_AFTER_SECS:
          shutil.rmtree(path, ignore_errors=True)


def copy_entry(entry: str, target: str) -> None:
  """Copies what is in an entry's folder to another, which is not there yet. As new files and folders: that those of the
  cache are for nobody else, or cannot be written, is no reason for the copy to be so."""
  for parent, _, names in os.walk(entry):
    folder = os.path.normpath(os.path.join(target, os.path.relpath(parent, entry)))
    os.makedirs(folder, exist_ok=True)
    for name in names:
      if (parent, name) != (entry, _SUMS_FILE):
        shutil.copyfile(os.path.join(parent, name), os.path.join(folder, name))


def read_source(digest: str) -> Any:
  """Returns what `write_source` kept, or None."""
  try:
    with open(_source_file(digest), encoding="utf-8") as file:
      return json.load(file)
  except (OSError, ValueError):
    return None


def write_source(digest: str, card: Mapping[str, Any]) -> None:
  """Keeps what was found. A cache that cannot be written is no fault: it is found again."""
  path = _source_file(digest)
  with contextlib.suppress(OSError):
    files.make_folder(os.path.dirname(path))
    files.write_text(path, json.dumps(dict(card), indent=2))


def _place(name: str) -> str:
  return os.path.join(folder(), *name.split("/"))


def _source_file(digest: str) -> str:
  return os.path.join(folder(), "sources", f"{digest}.json")


def _put(made: str, place: str) -> None:
  """Renames a finished folder to its place, unless somebody else's has got there first."""
  try:
    os.rename(made, place)
  except OSError:
    if _is_intact(place):
      return
    # Damaged: out of the way at once, deleted afterwards.
    aside = tempfile.mkdtemp(prefix=_DAMAGED, dir=os.path.dirname(place))
    with contextlib.suppress(FileNotFoundError):  # another process has done it a moment ago
      os.rename(place, os.path.join(aside, "entry"))
    try:
      os.rename(made, place)
    except OSError:
      if not _is_intact(place):
        raise
    finally:
      shutil.rmtree(aside, ignore_errors=True)


def _is_intact(place: str) -> bool:
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
        sums[os.path.relpath(path, entry)] = local_files.sha256(path)
  return sums


def folder() -> str:
  """Returns the cache's folder, which is there and can be written to."""
  return _check_root(_root())


def _root() -> str:
  if override := os.environ.get(_OVERRIDE):
    return os.path.abspath(override)
  # Without HOME, of a user whom the system does not know, it stays "~".
  return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "beam-retrain")


@functools.cache
def _check_root(root: str) -> str:
  """Returns the folder, or one for this process alone where nothing can be written to it."""
  try:
    if not os.path.isabs(root):
      raise OSError(errno.ENOENT, "no absolute path")
    os.makedirs(root, exist_ok=True)
    with tempfile.TemporaryFile(dir=root):
      return root
  except OSError as error:
    _report_not_kept(root, error.strerror)
    return _own_root()


@functools.cache
def _own_root() -> str:
  """Returns a folder that lasts for this process."""
  temporary = tempfile.mkdtemp(prefix="beam-retrain-")
  atexit.register(shutil.rmtree, temporary, ignore_errors=True)
  return temporary


@functools.cache  # said once
def _report_not_kept(root: str, why: str) -> None:
  print(
    f"no trunk is kept for the next run: {root} cannot be written ({why}); {_OVERRIDE} names another.", file=sys.stderr
  )
