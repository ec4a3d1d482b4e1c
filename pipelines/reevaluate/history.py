"""The history folder: one folder per night, published in one step.

```
HISTORY/2026-11-23/                          a finished night: published by a rename, replaced whole or not at all
        unfinished/2026-11-24-0123456789ab/  tonight's work: its date and the start of the request's digest
        unfinished/2026-11-24-replaced/      only while a night is replaced: the old one
        .lock                                held over each step that renames or deletes
        .lock-2026-11-24                     held over that whole night
```

A lock (`locks`) ends with the process that holds it, even if killed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from beam_retrain.pipelines.jobs import locks
from beam_retrain.pipelines.reevaluate.snapshot import (
  DATE,
  STAGE,
  UNFINISHED_FOLDER,
  Damaged,
  DamagedError,
  Night,
  check_history,
  dates,
  is_completed,
  read_json,
  read_night,
)
from beam_retrain.transforms.bottlenecks.store import STORES_FOLDER
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import INFO_FILE
from beam_retrain.transforms.core.run.run_info import reopen_folder
from beam_retrain.transforms.io import files

_LOCK = ".lock"
_REPLACED = "replaced"
_WORK = re.compile(rf"(?P<date>{DATE.pattern})-(?P<what>[0-9a-f]{{12}}|{_REPLACED})")


def read_nights(history: str) -> tuple[list[Night], list[Damaged]]:
  """Returns the finished nights and the damaged ones, both by date.

  Restores a night that a killed `publish` set aside. Checksums are not verified.

  Raises:
    InputError: the folder is remote, a file, or not a history folder.
  """
  check_history(history)
  _recover(history)
  finished, damaged = [], []
  for name in dates(history):
    path = os.path.join(history, name)
    try:
      finished.append(Night(name, path, read_night(path, name).trend_point()))
    except DamagedError as error:
      damaged.append(Damaged(name, str(error)))
  return finished, damaged


def working_folder(history: str, date: str, request: str) -> str:
  """Returns the folder of a night's unfinished work."""
  return os.path.join(history, UNFINISHED_FOLDER, f"{date}-{request[:12]}")


@contextlib.contextmanager
def tonight(history: str, date: str, request: str) -> Iterator[str]:
  """Locks the night `date` and yields its working folder.

  A killed run of the same request is resumed. At the end, older unfinished work is deleted if this night has its
  bottlenecks, too.

  Raises:
    InputError: another process works on this night, or `history/date` was not written by `reevaluate`. Nothing has been
      changed.
  """
  check_history(history)
  os.makedirs(history, exist_ok=True)
  busy = f"another process is working on the night {date} in {history}: wait until it ends, or stop it."
  with locks.hold_alone(_lock_path(history, date), busy):
    working = working_folder(history, date, request)
    with _changing(history):
      _recover_set_aside(history)
      _check_replaceable(os.path.join(history, date))
      if os.path.islink(working):
        raise InputError(f"{working} is a link: remove it.")
      os.makedirs(working, exist_ok=True)
    try:
      yield working
    finally:
      with contextlib.suppress(OSError), _changing(history):
        _prune_older_work(history, working, date)
        os.rmdir(os.path.join(history, UNFINISHED_FOLDER))  # fails if not empty


def publish(working: str, history: str, date: str) -> str:
  """Publishes a finished working folder as a night; returns its path.

  Replaces an older night of that date and deletes its other unfinished work. Must be called within `tonight`.

  Raises:
    InputError: `history/date` was not written by `reevaluate`.
  """
  if not is_completed(working):
    raise ValueError(f"{working} is not finished")
  night, aside = os.path.join(history, date), _set_aside(history, date)
  with _changing(history):
    _check_replaceable(night)
    replaced = os.path.lexists(night)
    if replaced:
      os.rename(night, aside)
    try:
      os.rename(working, night)
    except OSError:
      if replaced:
        os.rename(aside, night)
      raise
    files.delete(path for path, of in _works(history) if of == date)
  return night


def prune_stores(history: str, keep: int, date: str) -> None:
  """Deletes bottlenecks of all but the last `keep` nights.

  Also deletes older unfinished work. Does nothing while another night is in progress, which may read them. `date` is
  the night that the caller holds.
  """
  with _changing(history):
    if _others_at_work(history, date):
      return
    ours = [name for name in dates(history) if _is_ours(os.path.join(history, name))]
    finished = [name for name in ours if is_completed(os.path.join(history, name))]
    kept = finished[-keep:] if keep else []
    for name in ours:
      if name not in kept:
        _delete_stores(os.path.join(history, name))
    files.delete(path for path, of in _works(history) if kept and of < kept[0] and of != date)


def _prune_older_work(history: str, working: str, date: str) -> None:
  """Deletes older unfinished nights whose bottlenecks this one also has."""
  trunks = _finished_stores(working)
  if not trunks or _others_at_work(history, date):
    return
  for path, of in reversed(_works(history)):  # the newest first, as in `stores`
    if of <= date and path not in (working, _set_aside(history, of)):
      stored = _finished_stores(path)
      if stored <= trunks:
        files.delete([path])
      trunks |= stored


def _finished_stores(work: str) -> set[str]:
  folder = os.path.join(work, STORES_FOLDER)
  names = os.listdir(folder) if os.path.isdir(folder) and not os.path.islink(work) else []
  return {name for name in names if is_completed(os.path.join(folder, name))}


def _works(history: str) -> list[tuple[str, str]]:
  """Returns (path, date) of each folder of unfinished work."""
  folder = os.path.join(history, UNFINISHED_FOLDER)
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  return [(os.path.join(folder, name), match["date"]) for name in names if (match := _WORK.fullmatch(name))]


def _is_ours(folder: str) -> bool:
  """Whether `reevaluate` wrote this folder; links do not count."""
  with contextlib.suppress(DamagedError):
    return not os.path.islink(folder) and read_json(os.path.join(folder, INFO_FILE)).get("stage") == STAGE
  return False


def _check_replaceable(night: str) -> None:
  if os.path.lexists(night) and not _is_ours(night) and not (os.path.isdir(night) and not os.listdir(night)):
    raise InputError(
      f"{night} exists but was not written by `beam-retrain {STAGE}`, or its {INFO_FILE} is damaged: move it away."
    )


def _set_aside(history: str, date: str) -> str:
  return os.path.join(history, UNFINISHED_FOLDER, f"{date}-{_REPLACED}")


def _recover(history: str) -> None:
  if any(path == _set_aside(history, date) for path, date in _works(history)):
    with _changing(history):
      _recover_set_aside(history)


def _recover_set_aside(history: str) -> None:
  """Undoes or completes a killed `publish`; the caller holds the lock."""
  for path, date in _works(history):
    if path == _set_aside(history, date):
      if os.path.lexists(os.path.join(history, date)):
        files.delete([path])
      else:
        os.rename(path, os.path.join(history, date))


def _delete_stores(night: str) -> None:
  folder = os.path.join(night, STORES_FOLDER)
  if os.path.isdir(folder) and not os.path.islink(folder):
    for store in os.scandir(folder):
      if store.is_dir(follow_symlinks=False):
        reopen_folder(store.path)  # first, so that no reader takes a partial store for a finished one
    files.delete([folder])


def _lock_path(history: str, date: str) -> str:
  return os.path.join(history, f"{_LOCK}-{date}")


def _others_at_work(history: str, date: str) -> bool:
  others = [name.removeprefix(f"{_LOCK}-") for name in os.listdir(history) if name.startswith(f"{_LOCK}-")]
  return any(locks.is_held(_lock_path(history, other)) for other in others if other != date)


def _changing(history: str) -> contextlib.AbstractContextManager[None]:
  """Locks the history for renames and deletions; held for seconds."""
  return locks.hold(os.path.join(history, _LOCK))
