"""The history folder: one folder per night, published in one step.

```
HISTORY/2026-11-23/                          a finished night: published by a rename, replaced whole or not at all
        unfinished/2026-11-24-0123456789ab/  tonight's work: its date and the start of the request's digest
        unfinished/2026-11-24-replaced/      only while a night is replaced: the old one
        metrics.prom                         that of the last night, at a path that stays
        .lock                                held over each step that renames or deletes
        .lock-2026-11-24                     held over that whole night
```

A lock (`locks`) ends with the process that holds it, even if killed. In an object store it is otherwise: see `bucket`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from beam_retrain.pipelines.reevaluate import bucket
from beam_retrain.pipelines.reevaluate.bucket import is_bucket
from beam_retrain.transforms.bottlenecks.store import STORES_FOLDER, store_folder
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import Metrics, TrendPoint
from beam_retrain.transforms.core.metrics.metrics_file import MetricsError, metrics_from_json
from beam_retrain.transforms.core.records.schema import COMPLETED_FILE, INFO_FILE, METRICS_FILE
from beam_retrain.transforms.core.run.output_folder import find_faults, is_completed, reopen_folder
from beam_retrain.transforms.core.system import locks, scratch
from beam_retrain.transforms.evaluation.evaluate import PREDICTIONS_FILE
from beam_retrain.transforms.io import files

STAGE = "reevaluate"
PROMETHEUS_FILE = "metrics.prom"
_UNFINISHED_FOLDER = "unfinished"
_NOT_NIGHTS = (PROMETHEUS_FILE, "lost+found")  # the latter of a mounted disk
_LOCK = ".lock"
_REPLACED = "replaced"
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WORK = re.compile(rf"(?P<date>{_DATE.pattern})-(?P<what>[0-9a-f]{{12}}|{_REPLACED})")
_AT_ONCE = 10
_IN_TREND = ("labels", "night", "accuracy", "accuracy_interval_95", "total", "per_label", "gates")


class DamagedError(Exception):
  """What is wrong with a folder, in a few words."""


def read_nights(history: str) -> list[TrendPoint]:
  """Returns the finished nights by date; leaves out damaged ones.

  Restores a night that a killed `publish` set aside. Of the files only `info.json` and `metrics.json` are checked.
  """
  _check_history(history)
  if _set_aside_works(history):
    with _changing(history):
      _recover(history)

  def read(name: str) -> list[TrendPoint]:
    with contextlib.suppress(DamagedError):
      return [read_night(night_folder(history, name), name).trend_point()]
    return []

  with ThreadPoolExecutor(_AT_ONCE) as threads:
    read_each = threads.map if is_bucket(history) else map  # each night takes some requests
    return [night for nights in read_each(read, dates(history)) for night in nights]


def night_folder(history: str, name: str) -> str:
  """Returns the folder of a finished night, which need not exist."""
  if is_bucket(history):
    return bucket.night_folder(history, name) or files.join(history, name)
  return os.path.join(history, name)


def choose_date(text: str | None, today: datetime.date, history: str, nights: Sequence[TrendPoint]) -> str:
  """Returns tonight's name: `--date`, or else today, but no earlier night."""
  if text is not None:
    if not is_date(text):
      raise InputError(f"--date {text!r} is not a date: give it as YYYY-MM-DD, for example {today.isoformat()}.")
    return text
  name = today.isoformat()
  if nights and nights[-1].night > name:
    last = nights[-1].night
    raise InputError(
      f"today is {name} by this machine's clock, but there is a finished night of {last}: set the clock, give --date,"
      f" or move {files.shown(os.path.join(history, last))}{'.json' * is_bucket(history)} away."
    )
  return name


def trend(nights: Sequence[TrendPoint], until: str, limit: int = 90) -> list[TrendPoint]:
  """Returns the last `limit` nights before `until`, oldest first."""
  return [night for night in nights if night.night < until][-limit:]


def earlier_stores(history: str, date: str, fingerprint: str, working: str = "") -> list[str]:
  """Returns finished folders of a trunk's bottlenecks.

  These are: an older night of the same date, the last night before it, and the last unfinished work up to then except
  `working`. Call it within `tonight`: otherwise another night may delete them.
  """
  stores: list[str] = []
  for name in reversed(dates(history)):
    night = night_folder(history, name)
    store = store_folder(night, fingerprint)
    if name <= date and is_completed(night, files) and is_completed(store, files):
      stores.append(store)
      if name < date:
        break
  works = [store_folder(path, fingerprint) for path, of in _works(history) if of <= date and path != working]
  return [*stores, *[store for store in works if is_completed(store, files)][-1:]]


def working_folder(history: str, date: str, request: str) -> str:
  """Returns the folder of a night's unfinished work."""
  if is_bucket(history):
    return bucket.working_folder(history, date, request)
  return os.path.join(history, _UNFINISHED_FOLDER, f"{date}-{request[:12]}")


@contextlib.contextmanager
def tonight(history: str, date: str, request: str) -> Iterator[str]:
  """Locks the night `date` and yields its working folder.

  A killed run of the same request is resumed. At the end, older unfinished work is deleted if this night has its
  bottlenecks, too. Changes nothing if another process works on this night, or `history/date` is not of `reevaluate`.
  """
  _check_history(history)
  if is_bucket(history):
    with bucket.tonight(history, date, request, f"beam-retrain {STAGE}") as working:
      try:
        yield working
      finally:
        with contextlib.suppress(OSError):
          _prune_older_work(history, working, date)
    return
  os.makedirs(history, exist_ok=True)
  busy = f"another process is working on the night {date} in {history}"
  lock = _lock_path(history, date)
  with locks.hold_alone(lock, f"beam-retrain {STAGE}", busy), scratch.own_temporary_files(lock):
    working = working_folder(history, date, request)
    with _changing(history):
      _recover(history)
      _check_replaceable(os.path.join(history, date))
      if os.path.islink(working):
        raise InputError(f"{working} is a link: remove it.")
      os.makedirs(working, exist_ok=True)
    try:
      yield working
    finally:
      with contextlib.suppress(OSError), _changing(history):
        _prune_older_work(history, working, date)
        os.rmdir(os.path.join(history, _UNFINISHED_FOLDER))  # fails if not empty


def publish(working: str, history: str, date: str) -> str:
  """Publishes a finished working folder as a night; returns its path.

  Replaces an older night of that date and deletes its other unfinished work. Must be called within `tonight`.
  """
  if not is_completed(working, files):
    raise ValueError(f"{working} is not finished")
  if is_bucket(history):
    bucket.publish(working, history, date)
    files.delete(path for path, of in _works(history) if of == date)
    return working
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
    files.sync(history)
    files.delete(path for path, of in _works(history) if of == date)
  return night


def prune_stores(history: str, keep: int, date: str) -> None:
  """Deletes bottlenecks of all but the last `keep` nights.

  Also deletes older unfinished work, and locks and temporary files of killed nights. Does nothing while another night
  is in progress, which may read them. `date` is the night that the caller holds.
  """
  with _changing(history):
    if _others_at_work(history, date):
      return
    ours = [name for name in dates(history) if _is_ours(night_folder(history, name))]
    finished = [name for name in ours if is_completed(night_folder(history, name), files)]
    kept = finished[-keep:] if keep else []
    for name in ours:
      if name not in kept:
        _delete_stores(night_folder(history, name))
    files.delete(path for path, of in _works(history) if kept and of < kept[0] and of != date)
    with scratch.outside():
      for lock in [] if is_bucket(history) else _other_locks(history, date):
        held = locks.hold_alone(lock, f"beam-retrain {STAGE}", lock)
        with contextlib.suppress(InputError), held, scratch.scratch_folder(lock):
          pass


def _prune_older_work(history: str, working: str, date: str) -> None:
  """Deletes older unfinished nights whose bottlenecks this one also has."""
  trunks = _finished_stores(working)
  if not trunks or _others_at_work(history, date):
    return
  for path, of in reversed(_works(history)):  # the newest first, as in `earlier_stores`
    if of <= date and path not in (working, _set_aside(history, of)):
      stored = _finished_stores(path)
      if stored <= trunks:
        files.delete([path])
      trunks |= stored


def _finished_stores(work: str) -> set[str]:
  return {os.path.basename(store) for store in _stores(work) if is_completed(store, files)}


def _stores(night: str) -> list[str]:
  folder = files.join(night, STORES_FOLDER)
  if not files.is_local(night):
    return [files.join(folder, name) for name in files.subfolders(folder)]
  if not os.path.isdir(folder) or os.path.islink(folder) or os.path.islink(night):
    return []
  return [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]


def _works(history: str) -> list[tuple[str, str]]:
  """Returns (path, date) of each folder of unfinished work."""
  if is_bucket(history):
    return bucket.works(history)
  folder = os.path.join(history, _UNFINISHED_FOLDER)
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  return [(os.path.join(folder, name), match["date"]) for name in names if (match := _WORK.fullmatch(name))]


def _is_ours(folder: str) -> bool:
  """Whether `reevaluate` wrote this folder; links do not count."""
  with contextlib.suppress(DamagedError):
    return not os.path.islink(folder) and _read_json(files.join(folder, INFO_FILE)).get("stage") == STAGE
  return False


def _check_replaceable(night: str) -> None:
  if os.path.lexists(night) and not _is_ours(night) and not (os.path.isdir(night) and not os.listdir(night)):
    raise InputError(
      f"{night} exists but was not written by `beam-retrain {STAGE}`, or its {INFO_FILE} is damaged: move it away."
    )


def _set_aside(history: str, date: str) -> str:
  return os.path.join(history, _UNFINISHED_FOLDER, f"{date}-{_REPLACED}")


def _set_aside_works(history: str) -> list[tuple[str, str]]:
  return [(path, date) for path, date in _works(history) if path == _set_aside(history, date)]


def _recover(history: str) -> None:
  """Undoes or completes a killed `publish`; the caller holds the lock."""
  for path, date in _set_aside_works(history):
    night = os.path.join(history, date)
    if os.path.lexists(night):
      files.delete([path])
    else:
      os.rename(path, night)


def _delete_stores(night: str) -> None:
  if stores := _stores(night):
    for store in stores:
      reopen_folder(store, files)  # first, so that no reader takes a partial store for a finished one
    files.delete([files.join(night, STORES_FOLDER)])


def _lock_path(history: str, date: str) -> str:
  return os.path.join(history, f"{_LOCK}-{date}")


def _others_at_work(history: str, date: str) -> bool:
  if is_bucket(history):
    return bucket.others_at_work(history, date)
  return any(map(locks.is_held, _other_locks(history, date)))


def _other_locks(history: str, date: str) -> list[str]:
  others = (name.removeprefix(f"{_LOCK}-") for name in os.listdir(history) if name.startswith(f"{_LOCK}-"))
  return [_lock_path(history, other) for other in others if other != date]


def _changing(history: str) -> contextlib.AbstractContextManager[None]:
  """Locks the history for renames and deletions; held for seconds."""
  if is_bucket(history):  # where nothing is renamed
    return contextlib.nullcontext()
  return locks.hold(os.path.join(history, _LOCK))


def is_date(text: str) -> bool:
  try:
    return bool(_DATE.fullmatch(text) and datetime.date.fromisoformat(text))
  except ValueError:
    return False


def is_in_night(path: str, history: str) -> bool:
  if is_bucket(history):
    return f"{path}/".startswith(f"{files.join(history, bucket.NIGHTS_FOLDER)}/")
  inside = os.path.relpath(os.path.realpath(path), os.path.realpath(history))
  return is_date(inside.partition(os.sep)[0])


def dates(history: str) -> list[str]:
  if is_bucket(history):
    return bucket.dates(history)
  return sorted(filter(is_date, os.listdir(history))) if os.path.isdir(history) else []


def _check_history(history: str) -> None:
  if is_bucket(history):
    bucket.check_history(history)
    return
  if not files.is_local(history):
    raise InputError(
      f"--history {history} is remote, where folders cannot be renamed atomically: give a folder of s3:// or gs://, or"
      " a local or mounted one."
    )
  if not os.path.lexists(history):
    return
  if not os.path.isdir(history):
    raise InputError(f"--history {history} is a file: give a folder.")
  if os.path.islink(os.path.join(history, _UNFINISHED_FOLDER)):
    raise InputError(
      f"{os.path.join(history, _UNFINISHED_FOLDER)} is a link, but all nights must be on one disk: remove it."
    )
  # Hidden files do not count either.
  names = [name for name in os.listdir(history) if not name.startswith(".") and name not in _NOT_NIGHTS]
  if names and not any(is_date(name) or name == _UNFINISHED_FOLDER for name in names):
    raise InputError(
      f"--history {history} contains {sorted(names)[0]!r} but no nights of reevaluate: give a new or empty folder, or"
      " the one with earlier nights."
    )


def _read_json(path: str) -> dict[str, Any]:
  name = os.path.basename(path)
  try:
    value = json.loads(files.read_bytes(path))
  except OSError as error:
    raise DamagedError(f"{name} is missing or cannot be read") from error
  except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
    raise DamagedError(f"{name} is not valid JSON") from error
  if not isinstance(value, dict):
    raise DamagedError(f"{name} is not a JSON object")
  return value


def read_night(folder: str, name: str | None = None) -> Metrics:
  """Reads a finished night's `metrics.json`; `name` is its expected name.

  Raises DamagedError. Does not verify the predictions' checksum.
  """
  if not is_completed(folder, files):
    raise DamagedError(f"it has no {COMPLETED_FILE}")
  if _read_json(files.join(folder, INFO_FILE)).get("stage") != STAGE:
    raise DamagedError(f"its {INFO_FILE} was not written by `beam-retrain {STAGE}`")
  for path, fault in find_faults(folder, files, names=(INFO_FILE, METRICS_FILE)):
    raise DamagedError(f"its {path} {fault}")
  metrics = read_metrics(folder, ("predictions_sha256", *_IN_TREND))
  if name is not None and metrics.night != name:
    raise DamagedError(f"its {METRICS_FILE} is of the night {metrics.night!r}")
  if not files.exists(files.join(folder, PREDICTIONS_FILE)):
    raise DamagedError(f"it has no {PREDICTIONS_FILE}")
  return metrics


def read_metrics(folder: str, required: Collection[str] = ("labels",)) -> Metrics:
  """Reads a folder's `metrics.json`; raises DamagedError."""
  try:
    return metrics_from_json(_read_json(files.join(folder, METRICS_FILE)), required)
  except MetricsError as error:
    raise DamagedError(str(error)) from error
