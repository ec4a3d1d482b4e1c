"""The cache of trunks on the submitting machine.

  trunks/<fingerprint of the trunk itself>/saved_model/           as `Trunk.save` writes it
  trunks/<the same>/<runtime>-<precision>[-<calibration>]-<versions>/  prepared, see core/runtimes/prepared.py
  sources/<digest>.json                                           the trunk's info, by what the user gave
  batches/<digest>.json                                           the fastest batch size

Location: BEAM_RETRAIN_CACHE_DIR, else `beam-retrain` in XDG_CACHE_HOME, else ~/.cache/beam-retrain. It may be deleted
at any time. Entries are written to a temporary folder and renamed; if two processes make the same entry, the first one
stays. A damaged entry is made again. Temporary folders of killed processes are removed a day later. A process that uses
an entry holds a shared lock on its cache.json, whose time is that of the last use; `remove` needs an exclusive one.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.system import local_files, scratch
from beam_retrain.transforms.io import files

_SUM = "sha256"  # of a source's other entries
_SUMS_FILE = "cache.json"  # of an entry: relative path -> SHA-256
_OVERRIDE = "BEAM_RETRAIN_CACHE_DIR"
_MAKING, _DAMAGED = ".making-", ".damaged-"  # prefixes of temporary folders
_KINDS = ("sources", "batches")
written: set[str] = set()
"""Paths of what this process put into the cache."""
_used: dict[str, int] = {}  # place of an entry that this process uses -> descriptor that holds its lock
_LEFT_AFTER_SECS = 24 * 60 * 60.0  # longer than making any entry takes


def find(name: str) -> str:
  """Returns the folder of an intact entry, else ""."""
  place = os.path.join(folder(), name)
  return place if _use(place) else ""


def get_or_create(name: str, write: Callable[[str], None]) -> str:
  """Returns the folder of an entry; makes it if missing or damaged.

  `write` fills an empty folder. If the cache cannot be written, the entry goes to a temporary folder of this process.
  """
  place = os.path.join(folder(), name)
  if _use(place):
    return place
  try:
    made = _make(place, write)
    written.add(made)
    return made
  except OSError as error:
    if place == (instead := os.path.join(_own_root(), name)):
      raise
    _report_not_kept(folder(), error.strerror or str(error))
    return instead if _is_intact(instead) else _make(instead, write)


def _make(place: str, write: Callable[[str], None]) -> str:
  os.makedirs(os.path.dirname(place), exist_ok=True)
  for prefix in (_MAKING, _DAMAGED):  # of killed processes
    remove_old(glob.iglob(os.path.join(glob.escape(folder()), "trunks", "*", f"{prefix}*")), _LEFT_AFTER_SECS)
  made = tempfile.mkdtemp(prefix=_MAKING, dir=os.path.dirname(place))
  entry = os.path.join(made, "entry")
  try:
    os.mkdir(entry)  # with the user's umask; `mkdtemp` lets no other user read
    write(entry)
    files.write_text(os.path.join(entry, _SUMS_FILE), json.dumps(_sums(entry), indent=2))
    _put(entry, place)
  finally:
    shutil.rmtree(made, ignore_errors=True)
  _use(place)
  return place


def _use(place: str) -> bool:
  """Returns whether an entry is intact; it then stays."""
  try:
    descriptor = os.open(os.path.join(place, _SUMS_FILE), os.O_RDONLY)
  except OSError:
    return False
  with contextlib.suppress(OSError):  # a file system without locks
    fcntl.flock(descriptor, fcntl.LOCK_SH)
  if not _is_intact(place):
    os.close(descriptor)
    return False
  with contextlib.suppress(OSError):  # the cache may belong to another user
    os.utime(descriptor)
  if (earlier := _used.pop(place, None)) is not None:  # one step, for threads
    os.close(earlier)
  _used[place] = descriptor
  return True


class Entry(NamedTuple):
  """A folder of the cache, or all files of one kind.

  `used_secs`: when it was used or written, in seconds since 1970.
  """

  name: str
  size_bytes: int
  used_secs: float


def entries() -> list[Entry]:
  """Returns what is in the cache, what was used last first."""
  root = folder()
  named = glob.glob(os.path.join(glob.escape(root), "trunks", "*", "*")) + [os.path.join(root, kind) for kind in _KINDS]
  found = []
  for place in named:
    paths = [os.path.join(parent, name) for parent, _, names in os.walk(place) for name in names]
    stats = [os.stat(path) for path in paths if os.path.exists(path)]
    if stats:
      sums = [path for path in paths if path == os.path.join(place, _SUMS_FILE)]
      used_secs = os.stat(sums[0]).st_mtime if sums else max(stat.st_mtime for stat in stats)
      found.append(Entry(os.path.relpath(place, root), sum(stat.st_size for stat in stats), used_secs))
  return sorted(found, key=lambda entry: -entry.used_secs)


def remove(entry: Entry) -> bool:
  """Removes an entry; returns False if another process is using it."""
  place = os.path.join(folder(), entry.name)
  with contextlib.ExitStack() as stack:
    with contextlib.suppress(FileNotFoundError):  # files of one kind, each of which is read at once
      lock = stack.enter_context(open(os.path.join(place, _SUMS_FILE), "rb"))
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        return False
    aside = tempfile.mkdtemp(prefix=_DAMAGED, dir=os.path.dirname(place))
    with contextlib.suppress(FileNotFoundError):  # another process was first
      os.rename(place, os.path.join(aside, "entry"))
  shutil.rmtree(aside)
  with contextlib.suppress(OSError):  # there are others
    os.rmdir(os.path.dirname(place))
  return True


def remove_old(folders: Iterable[str], seconds: float) -> None:
  """Removes folders untouched for so long; safe to run in parallel."""
  for path in folders:
    with contextlib.suppress(OSError):
      if time.time() - os.stat(path).st_mtime > seconds:
        shutil.rmtree(path, ignore_errors=True)


def copy_entry(entry: str, target: str) -> None:
  """Links or copies an entry's files into a new folder."""
  for parent, _, names in os.walk(entry):
    folder = os.path.normpath(os.path.join(target, os.path.relpath(parent, entry)))
    os.makedirs(folder, exist_ok=True)
    for name in names:
      if (parent, name) != (entry, _SUMS_FILE):
        local_files.link_or_copy(os.path.join(parent, name), os.path.join(folder, name))


def read_source(digest: str, kind: str = "sources") -> Any:
  """Returns what `write_source` stored, or None if it is missing or damaged."""
  try:
    info = json.loads(files.read_bytes(_source_file(digest, kind)))
    return info if info.pop(_SUM) == _sum_of(info) else None
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return None


def write_source(digest: str, info: Mapping[str, object], kind: str = "sources") -> None:
  """Stores JSON values with their sum, if the cache can be written."""
  path = _source_file(digest, kind)
  with contextlib.suppress(OSError):
    files.make_folder(os.path.dirname(path))
    files.write_text(path, json.dumps({**info, _SUM: _sum_of(info)}, indent=2))
    written.add(path)


def _sum_of(info: Mapping[str, object]) -> str:
  return hashlib.sha256(json.dumps(dict(info), sort_keys=True).encode()).hexdigest()


def _source_file(digest: str, kind: str) -> str:
  return os.path.join(folder(), kind, f"{digest}.json")


def _put(made: str, place: str) -> None:
  """Renames a finished folder to its place, unless an intact one exists."""
  try:
    os.rename(made, place)
  except OSError:
    if _is_intact(place):
      return
    # Moves the damaged entry out of the way, then deletes it.
    aside = tempfile.mkdtemp(prefix=_DAMAGED, dir=os.path.dirname(place))
    with contextlib.suppress(FileNotFoundError):  # another process moved it first
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
    return bool(json.loads(files.read_bytes(os.path.join(place, _SUMS_FILE))) == _sums(place))
  except (OSError, ValueError):
    return False


def _sums(entry: str) -> dict[str, str]:
  paths = sorted(os.path.join(parent, name) for parent, _, names in os.walk(entry) for name in names)
  return {name: local_files.sha256(path) for path in paths if (name := os.path.relpath(path, entry)) != _SUMS_FILE}


def folder() -> str:
  """Returns the cache's folder, which exists and can be written."""
  override = os.environ.get(_OVERRIDE)
  # Without HOME, for a user unknown to the system, "~" stays.
  home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return _check_root(os.path.abspath(override) if override else os.path.join(home, "beam-retrain"))


@functools.cache
def _check_root(root: str) -> str:
  """Returns `root`, or a temporary folder if it cannot be written."""
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
  """Returns a temporary folder that is deleted with this process."""
  with scratch.outside():
    temporary = tempfile.mkdtemp(prefix="beam-retrain-")
  atexit.register(shutil.rmtree, temporary, ignore_errors=True)
  return temporary


@functools.cache  # print once
def _report_not_kept(root: str, why: str) -> None:
  say(
    f"the cache folder {root} cannot be written ({why}), so the next run prepares its trunk again: set {_OVERRIDE} to"
    " another folder.",
    file=sys.stderr,
  )
