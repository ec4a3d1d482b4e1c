"""A history in an object store, where no folder can be renamed.

```
HISTORY/2026-11-23.json                    a finished night: {"folder": "2026-11-23-0123456789ab"}, written last
        nights/2026-11-23-0123456789ab/    that night; or tonight's work, by date and start of the request's digest
        nights/2026-11-23-0123456789ab/.lock  lease of the command that works there
        metrics.prom                       that of the last night
```

A night is its small object: it is written on condition that it is as last seen, so that a night is replaced whole.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator

from beam_retrain.pipelines.jobs.locks import hold_output
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system.local_files import LOCK_FILE
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.lease import LENGTH_SECS
from beam_retrain.transforms.io.object_stores.base import UnconditionalError, threads

NIGHTS_FOLDER = "nights"
_SUFFIX = ".json"
_AGAIN = "-again"
_SURELY_DEAD_SECS = 10 * LENGTH_SECS  # of a lease that is no longer renewed, whatever the clocks say
_DATE = r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
_POINTER = re.compile(rf"{_DATE}{re.escape(_SUFFIX)}")
_WORK = re.compile(rf"{_DATE}-[0-9a-f]{{12}}(?:{_AGAIN})?")


def is_bucket(history: str) -> bool:
  return history.partition("://")[0] in files.HTTP_STORES


def dates(history: str) -> list[str]:
  return [match["date"] for name in files.files_in(history) if (match := _POINTER.fullmatch(name))]


def check_history(history: str) -> None:
  """Raises InputError if a folder holds something else."""
  files.check_reachable([history])
  others = files.files_in(history)
  if others and not any(map(_POINTER.fullmatch, others)):
    raise InputError(
      f"--history {history} contains {others[0]!r} but no nights of reevaluate: give a new or empty folder, or the one"
      " with earlier nights."
    )


def night_folder(history: str, date: str) -> str:
  """Returns a finished night's folder; "" without an intact object."""
  with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
    name = json.loads(files.read_bytes(_pointer(history, date)))["folder"]
    if (match := _WORK.fullmatch(name)) and match["date"] == date:
      return _folder(history, name)
  return ""


def working_folder(history: str, date: str, request: str) -> str:
  """Returns the folder for work on a night, finished or not."""
  folder = _folder(history, f"{date}-{request[:12]}")
  return f"{folder}{_AGAIN}" if night_folder(history, date) == folder else folder


def works(history: str) -> list[tuple[str, str]]:
  """Returns (path, date) of each folder of unfinished work."""
  found = files.subfolders(files.join(history, NIGHTS_FOLDER))
  dated = [(_folder(history, name), match["date"]) for name in found if (match := _WORK.fullmatch(name))]
  finished = set(threads().map(lambda work: night_folder(history, work[1]), dated))
  return [work for work in dated if work[0] not in finished]


@contextlib.contextmanager
def tonight(history: str, date: str, request: str, command: str) -> Iterator[str]:
  """Holds the lease of a night's working folder, and yields that."""
  path, working = _pointer(history, date), working_folder(history, date, request)
  if files.exists(path) and not night_folder(history, date):
    raise InputError(f"{path} was not written by `beam-retrain reevaluate`, or is damaged: move it away.")
  with hold_output(working, command):
    yield working


def publish(working: str, history: str, date: str) -> None:
  """Makes a finished working folder the night; may raise InputError."""
  path = _pointer(history, date)
  data = json.dumps({"folder": working.rpartition("/")[2]}).encode()
  store = files.HTTP_STORES[history.partition("://")[0]]
  _, version = store.read_version(path) or (b"", "")
  try:
    # The answer may have been lost, and the client have tried again.
    if store.write_if(path, data, version) is None and files.read_bytes(path) != data:
      raise InputError(f"another command published the night {date} in {history} at the same time: run this one again.")
  except UnconditionalError:
    files.write_bytes(path, data)


def others_at_work(history: str, date: str) -> bool:
  """Whether another command holds the lease of another night."""
  locks = files.stat_each([files.join(path, LOCK_FILE) for path, of in works(history) if of != date])
  return any(lock and time.time() - lock.modified_secs < _SURELY_DEAD_SECS for lock in locks)


def _pointer(history: str, date: str) -> str:
  return files.join(history, f"{date}{_SUFFIX}")


def _folder(history: str, name: str) -> str:
  return files.join(history, NIGHTS_FOLDER, name)
