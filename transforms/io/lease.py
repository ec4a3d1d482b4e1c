"""Leases on folders of object stores; a dead owner loses its own.

A lease is an object, written on condition that it is as last seen. Its owner renews it; one that does not change for
its whole length, by the clock of whoever waits for it, may be taken over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.system.local_files import LOCK_FILE
from beam_retrain.transforms.core.system.locks import Holder, claimed
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.object_stores.base import HttpStore, UnconditionalError

LENGTH_SECS = 30.0
_LONGEST_SECS = 10 * LENGTH_SECS  # an object that claims more is not ours: nobody waits for it
_LOOK_SECS = 0.5


@contextlib.contextmanager
def hold_lease(folder: str, command: str, secs: float = LENGTH_SECS) -> Iterator[None]:
  """Holds an output folder of an object store; warns if it cannot.

  Raises InputError if another command holds it, at once or before this one has ended.
  """
  store = files.HTTP_STORES.get(folder.partition("://")[0])
  lease = Lease(store, folder, command, secs) if store else None
  if lease is None or not lease.take():
    say(
      f"beam-retrain: warning: {folder}: its server has no conditional writes, by which commands keep out of each"
      " other's way: run one at a time there.",
      file=sys.stderr,
    )
    yield
    return
  try:
    try:
      with claimed(lease.path, lease.token):
        yield
    finally:
      lease.end()
    if lease.is_lost:
      raise lease.lost()
  except BaseException as error:
    if lease.is_lost:
      raise lease.lost() from error
    raise


class Lease:
  """A lease on a folder, by this process."""

  def __init__(self, store: HttpStore, folder: str, command: str, secs: float):
    self._store, self._folder, self.path = store, folder, f"{folder}/{LOCK_FILE}"
    self.token = os.urandom(16).hex()
    self._entries = {**dataclasses.asdict(Holder.me(command)), "secs": secs, "token": self.token}
    self._secs = secs
    self._version, self._renewals = "", 0
    self._changing, self._ends = threading.Lock(), threading.Event()
    self._thread = threading.Thread(target=self._keep, daemon=True)
    self.is_lost = False

  def take(self) -> bool:
    """Takes the lease; returns False if the server ignores conditions."""
    try:
      while not self._write(""):
        found = self._store.read_version(self.path)
        if found is not None and self._wait_for_its_end(*found) and self._write(found[1]):
          break
      if self._store.write_if(self.path, self._data(), "") is not None:
        self._store.delete([self.path])
        return False
    except UnconditionalError:
      return False
    self._thread.start()
    return True

  def _wait_for_its_end(self, data: bytes, version: str) -> bool:
    """Waits as long as a lease lasts; returns whether it stayed.

    Raises InputError if it was renewed or taken.
    """
    try:
      secs = float(json.loads(data)["secs"])
      if not 0 < secs <= _LONGEST_SECS:
        raise ValueError(secs)
    except (ValueError, TypeError, KeyError) as error:
      raise InputError(
        f"{self.path} was not written by beam-retrain: delete it, or give another {flag('output')}."
      ) from error
    until = time.monotonic() + secs
    say(f"beam-retrain: {self.path}: looking for up to {secs:g} s whether its owner still works", file=sys.stderr)
    while time.monotonic() < until:
      time.sleep(min(_LOOK_SECS, secs / 6))
      found = self._store.read_version(self.path)
      if found is None:
        return False
      if found[1] != version:
        raise InputError(
          f"{self._folder} is being written by another command ({Holder.from_json(found[0])}): wait until it ends,"
          f" stop it, or give another {flag('output')}."
        )
    return True

  def renew(self) -> bool:
    """Returns whether the lease is still this process's."""
    with self._changing:
      self.is_lost = self.is_lost or not self._write(self._version)
    return not self.is_lost

  def lost(self) -> InputError:
    return InputError(
      f"another command took {self._folder}, as this one had not renewed its lease for {self._secs:g} s: run one at a"
      f" time, or give another {flag('output')}."
    )

  def end(self) -> None:
    """Removes the lease."""
    self._ends.set()
    self._thread.join()
    if not self.is_lost:
      with contextlib.suppress(Exception):  # one that stays only makes the next command wait
        self._store.delete_if(self.path, self._version)

  def _keep(self) -> None:
    while not self._ends.wait(self._secs / 3):
      with contextlib.suppress(Exception):  # no answer: whether it is lost, the next one tells
        if not self.renew():
          _interrupt()
          return

  def _data(self) -> bytes:
    return json.dumps({**self._entries, "renewals": self._renewals}).encode()

  def _write(self, version: str) -> bool:
    """Writes the lease unless it has changed; returns whether."""
    self._renewals += 1
    written = self._store.write_if(self.path, self._data(), version)
    if written is None:  # or the answer was lost, and the client tried again
      found = self._store.read_version(self.path)
      written = found[1] if found is not None and found[0] == self._data() else None
    self._version = written or self._version
    return written is not None


def _interrupt() -> None:
  """Ends the command as Ctrl-C does, also while it waits."""
  for number in (signal.SIGTERM, signal.SIGINT):
    if callable(signal.getsignal(number)):
      signal.pthread_kill(threading.main_thread().ident or 0, number)
      return
