"""The nights of `reevaluate`: a folder each in the history folder, published whole, found again as baselines.

```
HISTORY/2026-11-23/                        a finished night; it never changes but for its stored bottlenecks
        unfinished/2026-11-24-0123456789ab/  tonight's work: date and start of the request's digest
        unfinished/2026-11-24-replaced/      only while a night is replaced: the old one, set aside
        .lock  .lock-2026-11-24              held over each step that renames or deletes; over a whole night
```

The locks are the kernel's (`flock`): they end with the process that holds them, however it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from transforms import files
from transforms.core.errors import InputError
from transforms.core.finished import parse_info, read_info
from transforms.core.schema import COMPLETED_FILE, INFO_FILE
from transforms.evaluate import METRICS_FILE, PREDICTIONS_FILE

STAGE = "reevaluate"
STORES_FOLDER = "bottlenecks"
UNFINISHED_FOLDER = "unfinished"
NO_BASELINE = "none"
_LOCK = ".lock"
_REPLACED = "replaced"
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WORK = re.compile(rf"(?P<date>{_DATE.pattern})-(?P<what>[0-9a-f]{{12}}|{_REPLACED})")
_FINGERPRINT_LENGTH = 12
_MAX_LISTED = 10


class Night(NamedTuple):
  """A finished night: its name, `YYYY-MM-DD`, and its folder."""

  name: str
  path: str


class Damaged(NamedTuple):
  """A night's folder that is no finished night: its name, and why."""

  name: str
  why: str


@dataclasses.dataclass(frozen=True)
class Baseline:
  """What tonight is compared with.

  Attributes:
    name: a night's name, or the folder as it was given.
    predictions: path of its `predictions.csv`.
    labels: its label list.
    metrics: the contents of its `metrics.json`.
    sha256: of `predictions`, 64 hex digits.
  """

  name: str
  predictions: str
  labels: Sequence[str]
  metrics: Mapping[str, Any]
  sha256: str


class _DamagedError(Exception):
  """Says in a few words what is wrong with a folder."""


def look(history: str) -> tuple[list[Night], list[Damaged]]:
  """Returns the finished nights and the damaged ones, both by date; first puts back a night that a kill left set aside.

  Everything is checked but the predictions' checksum: that of the baseline alone is, by `choose_baseline`.

  Raises:
    InputError: the folder is remote, a file, or not a history folder.
  """
  _check_history(history)
  _recover(history)
  finished, damaged = [], []
  for name in _dates(history):
    path = os.path.join(history, name)
    try:
      _read_night(path, name)
      finished.append(Night(name, path))
    except _DamagedError as error:
      damaged.append(Damaged(name, str(error)))
  return finished, damaged


def check_date(text: str | None, today: datetime.date, finished: Sequence[Night]) -> str:
  """Returns tonight's name: `--date`, or else today.

  Raises:
    InputError: `text` is not a day as `YYYY-MM-DD`; or none was given and there is a finished night after today.
  """
  if text is not None:
    if not _is_date(text):
      raise InputError(f"--date {text!r} is not a day: give it as YYYY-MM-DD, for example {today.isoformat()}.")
    return text
  name = today.isoformat()
  if finished and finished[-1].name > name:
    raise InputError(
      f"today is {name} by this machine's clock, but there is a finished night of {finished[-1].name}: set the clock,"
      " or say with --date which night this is."
    )
  return name


def choose_baseline(history: str, date: str, given: str | None, labels: Sequence[str]) -> Baseline | None:
  """Returns what the night of `date` is compared with; None where there is nothing, or nothing is wanted.

  Args:
    history: the history folder.
    date: tonight's name.
    given: `none`; a night's name; a folder that `evaluate` or `reevaluate` wrote; or None: the last finished night
      before `date`. One whose predictions are not what they were is named on standard error and the one before taken.
    labels: the model's label list.

  Raises:
    InputError: what was given is not there, or damaged, or tonight itself; or the baseline has other labels.
  """
  if given == NO_BASELINE:
    return None
  if given is None:
    found = _last_baseline(history, date)
  elif _is_date(given):
    found = _given_night(history, date, given)
  else:
    found = _given_folder(history, date, given)
  if found and set(found.labels) != set(labels):
    raise InputError(_labels_differ(found, labels))
  return found


def check_unchanged(baseline: Baseline) -> None:
  """Checks that nobody has replaced the baseline since it was chosen: a rerun of that night may have ended meanwhile.

  Raises:
    InputError: its predictions are gone or are others.
  """
  try:
    unchanged = _sha256(baseline.predictions) == baseline.sha256
  except OSError:
    unchanged = False
  if not unchanged:
    raise InputError(f"the baseline {baseline.name} was replaced while it was compared with: run the command again.")


def trend(history: str, until: str, limit: int = 90) -> list[dict[str, Any]]:
  """Returns the last `limit` finished nights before the night `until`, the oldest first, as the report draws them.

  Each has `night`, `accuracy`, `accuracy_interval_95`, `total`, `verdict`, and `per_label`: label -> recall; rates are
  0..1, None where unknown.
  """
  found: list[dict[str, Any]] = []
  for name in reversed(_dates(history)):
    if name < until and len(found) < limit:
      with contextlib.suppress(_DamagedError):
        found.append(_figures(_read_night(os.path.join(history, name), name)))
  return found[::-1]


def stores(history: str, date: str, fingerprint: str) -> list[str]:
  """Returns finished folders of stored bottlenecks of a trunk: of an older night `date`, and the last one before it.

  Call it in `tonight`: until then another night may remove them.
  """
  found: list[str] = []
  for name in reversed(_dates(history)):
    night = os.path.join(history, name)
    store = os.path.join(night, STORES_FOLDER, fingerprint[:_FINGERPRINT_LENGTH])
    if name <= date and _is_completed(night) and _is_completed(store):
      found.append(store)
      if name < date:
        break
  return found


@contextlib.contextmanager
def tonight(history: str, date: str, request: str) -> Iterator[str]:
  """Holds the night `date`, and gives its working folder: that of a killed run of the same request, or a new one.

  Args:
    history: the history folder; made where it is not there.
    date: tonight's name.
    request: digest of the request, hex digits.

  Raises:
    InputError: another process is at work on this night; or `history/date` is something that `reevaluate` did not
      write. Nothing was touched then.
  """
  _check_history(history)
  os.makedirs(history, exist_ok=True)
  with contextlib.ExitStack() as held:
    with _changing(history):
      held.enter_context(_lock_night(history, date))
      _recover_set_aside(history)
      _check_replaceable(os.path.join(history, date))
      working = os.path.join(history, UNFINISHED_FOLDER, f"{date}-{request[:12]}")
      if os.path.islink(working):
        raise InputError(f"{working} is a link: remove it.")
      os.makedirs(working, exist_ok=True)
    try:
      yield working
    finally:
      with _changing(history):
        # Only under the other lock: nobody can be about to take the file that is removed here.
        os.unlink(_lock_path(history, date))
        with contextlib.suppress(OSError):
          os.rmdir(os.path.join(history, UNFINISHED_FOLDER))  # if nothing is in it


def publish(working: str, history: str, date: str) -> str:
  """Makes a finished working folder the night `date`, in place of an older one; returns its path.

  What else is left of that date's work is deleted. To be called in `tonight`.

  Raises:
    InputError: `history/date` is something that `reevaluate` did not write.
  """
  if not _is_completed(working):
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
  """Deletes the stored bottlenecks of all nights but the last `keep` finished ones, and unfinished work older than they.

  Where another night is at work, which may be reading them, everything is left for the next time.

  Args:
    history: the history folder.
    keep: how many.
    date: the night that the caller holds.
  """
  with _changing(history):
    if _others_at_work(history, date):
      return
    ours = [name for name in _dates(history) if _is_ours(os.path.join(history, name))]
    finished = [name for name in ours if _is_completed(os.path.join(history, name))]
    kept = finished[-keep:] if keep else []
    for name in ours:
      if name not in kept:
        _delete_stores(os.path.join(history, name))
    files.delete(path for path, of in _works(history) if kept and of < kept[0] and of != date)


def _is_date(text: str) -> bool:
  try:
    return bool(_DATE.fullmatch(text) and datetime.date.fromisoformat(text))
  except ValueError:
    return False


def _dates(history: str) -> list[str]:
  return sorted(filter(_is_date, os.listdir(history))) if os.path.isdir(history) else []


def _works(history: str) -> list[tuple[str, str]]:
  """Returns (path, date) of all that is ours in the folder of unfinished work."""
  folder = os.path.join(history, UNFINISHED_FOLDER)
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  return [(os.path.join(folder, name), match["date"]) for name in names if (match := _WORK.fullmatch(name))]


def _check_history(history: str) -> None:
  if not files.is_local(history):
    raise InputError(
      f"--history {history} is remote, where a folder cannot be renamed in one step: give a local or mounted folder."
    )
  if not os.path.lexists(history):
    return
  if not os.path.isdir(history):
    raise InputError(f"--history {history} is a file: give a folder.")
  if os.path.islink(os.path.join(history, UNFINISHED_FOLDER)):
    raise InputError(
      f"{os.path.join(history, UNFINISHED_FOLDER)} is a link: nights are made beside each other; remove it."
    )
  # Hidden files and a mounted disk's `lost+found` say nothing of what the folder is for.
  names = [name for name in os.listdir(history) if not name.startswith(".") and name != "lost+found"]
  if names and not any(_is_date(name) or name == UNFINISHED_FOLDER for name in names):
    raise InputError(
      f"--history {history} holds {sorted(names)[0]!r} and no nights of reevaluate: give a new or empty folder, or the"
      " one of earlier nights."
    )


def _read_json(path: str) -> dict[str, Any]:
  """Returns a JSON object.

  Raises:
    _DamagedError: it is not there, or not one.
  """
  name = os.path.basename(path)
  try:
    found = json.loads(files.read_bytes(path))
  except OSError as error:
    raise _DamagedError(f"{name} is missing or cannot be read") from error
  except ValueError as error:
    raise _DamagedError(f"{name} is not JSON") from error
  if not isinstance(found, dict):
    raise _DamagedError(f"{name} is not a JSON object")
  return found


def _read_night(folder: str, name: str | None = None) -> dict[str, Any]:
  """Returns the contents of a finished night's `metrics.json`; `name` is what the night has to be called.

  Raises:
    _DamagedError: it is no finished night; what it says is checked, but not the predictions' checksum.
  """
  if not _is_completed(folder):
    raise _DamagedError(f"it has no {COMPLETED_FILE}")
  if _read_json(files.join(folder, INFO_FILE)).get("stage") != STAGE:
    raise _DamagedError(f"its {INFO_FILE} is not one of `beam-retrain {STAGE}`")
  metrics = _read_json(files.join(folder, METRICS_FILE))
  if not isinstance(metrics.get("predictions_sha256"), str):
    raise _DamagedError(f"its {METRICS_FILE} has no 'predictions_sha256'")
  _figures(metrics)
  if name is not None and metrics["night"] != name:
    raise _DamagedError(f"its {METRICS_FILE} is of the night {metrics['night']}")
  if not files.exists(files.join(folder, PREDICTIONS_FILE)):
    raise _DamagedError(f"it has no {PREDICTIONS_FILE}")
  return metrics


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
  """Returns an entry of `trend`.

  Raises:
    _DamagedError: something is not there, or is something else.
  """
  try:
    names = ("night", "accuracy", "accuracy_interval_95", "total", "verdict")
    low, high = map(float, metrics["accuracy_interval_95"])
    rates = [metrics["accuracy"], low, high]
    recalls = {label: metrics["per_label"][label]["recall"] for label in metrics["labels"]}
    for rate in (*rates, *recalls.values()):
      if rate is not None and not 0 <= rate <= 1:
        raise ValueError(rate)
    return {**{name: metrics[name] for name in names}, "per_label": recalls}
  except (KeyError, TypeError, ValueError) as error:
    raise _DamagedError(f"its {METRICS_FILE} is not as `beam-retrain {STAGE}` writes it: {error!r}") from error


def _last_baseline(history: str, date: str) -> Baseline | None:
  for name in reversed(_dates(history)):
    if name < date:
      folder = os.path.join(history, name)
      try:
        metrics = _read_night(folder, name)
      except _DamagedError:
        continue  # `look` named it
      try:
        return _baseline(name, folder, metrics)
      except _DamagedError as error:
        print(f"the night {name} is damaged and not compared with: {error}", file=sys.stderr)
  return None


def _given_night(history: str, date: str, name: str) -> Baseline:
  folder = os.path.join(history, name)
  if name == date:
    raise InputError(f"--baseline {name} is tonight itself: {_choices(history, date)}.")
  if not os.path.lexists(folder):
    raise InputError(f"--baseline {name}: {history} has no such night: {_choices(history, date)}.")
  try:
    return _baseline(name, folder, _read_night(folder, name))
  except _DamagedError as error:
    raise InputError(f"--baseline {name} is damaged, {error}: {_choices(history, date)}.") from error


def _given_folder(history: str, date: str, folder: str) -> Baseline:
  info_path = files.join(folder, INFO_FILE)
  stage = parse_info(files.read_bytes(info_path)).get("stage") if files.exists(info_path) else None
  if stage not in (STAGE, "evaluate"):
    raise InputError(
      f"--baseline {folder} is neither a night nor a folder that evaluate or reevaluate wrote: {_choices(history, date)}."
    )
  if files.is_local(folder) and os.path.realpath(folder) == os.path.realpath(os.path.join(history, date)):
    raise InputError(f"--baseline {folder} is tonight itself: {_choices(history, date)}.")
  try:
    if stage == STAGE:
      return _baseline(folder, folder, _read_night(folder))
    read_info(folder, "evaluate", files.exists, files.read_bytes)
    return _baseline(folder, folder, _read_json(files.join(folder, METRICS_FILE)))
  except _DamagedError as error:
    raise InputError(f"--baseline {folder} is damaged, {error}: {_choices(history, date)}.") from error


def _baseline(name: str, folder: str, metrics: Mapping[str, Any]) -> Baseline:
  predictions = files.join(folder, PREDICTIONS_FILE)
  try:
    found = _sha256(predictions)
  except OSError as error:
    raise _DamagedError(f"its {PREDICTIONS_FILE} is missing or cannot be read") from error
  if metrics.get("predictions_sha256", found) != found:
    raise _DamagedError(f"its {PREDICTIONS_FILE} is not the one that was written")
  labels = metrics.get("labels")
  if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
    raise _DamagedError(f"its {METRICS_FILE} has no label list")
  return Baseline(name, predictions, labels, metrics, found)


def _choices(history: str, date: str) -> str:
  nights = [name for name in _dates(history) if name != date]
  more = f" and {len(nights) - _MAX_LISTED} earlier ones" if len(nights) > _MAX_LISTED else ""
  there = f"one of {', '.join(nights[-_MAX_LISTED:])}{more}, " if nights else "(there is no other night) "
  return f"give {there}the output folder of an evaluate, or {NO_BASELINE}"


def _labels_differ(baseline: Baseline, labels: Sequence[str]) -> str:
  sides = {
    "only the baseline has": [label for label in baseline.labels if label not in labels],
    "only the model has": [label for label in labels if label not in baseline.labels],
  }
  told = "; ".join(
    f"{side} {', '.join(map(repr, found[:_MAX_LISTED]))}"
    + (f" and {len(found) - _MAX_LISTED} more" if len(found) > _MAX_LISTED else "")
    for side, found in sides.items()
    if found
  )
  return (
    f"the baseline {baseline.name} has other labels than the model ({told}): give another --baseline, or --baseline"
    f" {NO_BASELINE} to begin anew."
  )


def _sha256(path: str) -> str:
  with files.open_to_read(path) as file:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
      digest.update(block)
  return digest.hexdigest()


def _is_completed(folder: str) -> bool:
  return files.exists(files.join(folder, COMPLETED_FILE))


def _is_ours(folder: str) -> bool:
  """Says whether `reevaluate` wrote a folder of this history; one that a link leads to lies elsewhere."""
  with contextlib.suppress(_DamagedError):
    return not os.path.islink(folder) and _read_json(os.path.join(folder, INFO_FILE)).get("stage") == STAGE
  return False


def _check_replaceable(night: str) -> None:
  if os.path.lexists(night) and not _is_ours(night) and not (os.path.isdir(night) and not os.listdir(night)):
    raise InputError(
      f"{night} is there and was not written by `beam-retrain {STAGE}`, or its {INFO_FILE} is damaged: move it away."
    )


def _set_aside(history: str, date: str) -> str:
  return os.path.join(history, UNFINISHED_FOLDER, f"{date}-{_REPLACED}")


def _recover(history: str) -> None:
  if any(path == _set_aside(history, date) for path, date in _works(history)):
    with _changing(history):
      _recover_set_aside(history)


def _recover_set_aside(history: str) -> None:
  """Undoes or ends what a kill in `publish` left. Under the lock, a night that is set aside has no living owner."""
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
        files.delete([os.path.join(store.path, COMPLETED_FILE)])  # first: no reader takes a half one for finished
    files.delete([folder])


def _lock_path(history: str, date: str) -> str:
  return os.path.join(history, f"{_LOCK}-{date}")


def _others_at_work(history: str, date: str) -> bool:
  for name in os.listdir(history):
    of = name.removeprefix(f"{_LOCK}-")
    if name != of and of != date and _is_date(of):
      with _opened(os.path.join(history, name)) as lock:
        if not _try_lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
          return True
  return False


@contextlib.contextmanager
def _changing(history: str) -> Iterator[None]:
  """Waits until no other process renames or deletes in the history, and keeps the others waiting: seconds at most."""
  with _opened(os.path.join(history, _LOCK)) as lock:
    _try_lock(lock, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def _lock_night(history: str, date: str) -> Iterator[None]:
  path = _lock_path(history, date)
  with _opened(path) as lock:
    if not _try_lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
      raise InputError(f"another process is at work on the night {date} in {history}: wait for its end, or stop it.")
    yield


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
  lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
  try:
    yield lock
  finally:
    os.close(lock)


def _try_lock(lock: int, how: int) -> bool:
  try:
    fcntl.flock(lock, how)
  except BlockingIOError:
    return False
  except OSError as error:
    raise InputError(f"the history's file system cannot lock files ({error.strerror}): use another one.") from error
  return True
