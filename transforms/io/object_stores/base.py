"""The protocol of object stores, and a base for those over HTTP."""

from __future__ import annotations

import abc
import errno
import functools
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, ClassVar, NamedTuple, Protocol, cast

from apache_beam.io.filesystemio import Downloader, DownloaderStream
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.io.beam_internals import options_in_use

CHECK_SECS = 5
"""Timeout of the request that checks a bucket."""
_RANGE_BYTES = 1 << 24  # an image takes one request; a large file takes no more memory than this
_THREADS = 10  # boto3's number of connections
REFUSED = (401, 403)
MISSING, _BEYOND_THE_END = 404, 416
_CHANGED, _UNKNOWN = (404, 409, 412), 501


class UnconditionalError(Exception):
  """The server does not know conditional writes."""


class FileStat(NamedTuple):
  path: str
  size_bytes: int
  modified_secs: float


class ObjectStore(Protocol):
  """Access to one object store. Called by several threads at once.

  Paths include the scheme. A name that ends in a slash, an empty folder, is an ordinary object here. `stat` returns
  None for an object that is missing or not visible; `list_prefix` is sorted by name; `children` are the names in a
  folder, those of folders with a slash at the end; `upload` is atomic; `delete` takes exact names in one bucket and
  ignores missing ones.
  """

  def stat(self, path: str) -> FileStat | None: ...
  def open_to_read(self, path: str) -> BinaryIO: ...
  def list_prefix(self, prefix: str) -> Iterator[FileStat]: ...
  def children(self, folder: str) -> set[str]: ...
  def upload(self, path: str, file: BinaryIO) -> None: ...
  def delete(self, paths: list[str]) -> None: ...


class HttpStore(ObjectStore):
  """An object store whose client raises errors with an HTTP status.

  Credentials that do not allow reading or writing raise InputError. Not an OSError, which would quarantine the image:
  credentials can expire during a job. Those that do not allow deleting raise PermissionError.
  """

  shares_client: ClassVar[bool]  # by all threads

  def __init__(self) -> None:
    self._forget_clients()
    os.register_at_fork(after_in_child=self._forget_clients)  # connections cannot be shared

  def _forget_clients(self) -> None:
    self._lock = threading.Lock()
    self._clients: dict[int, tuple[PipelineOptions, Any]] = {}

  @property
  def client(self) -> Any:
    """The client for the options in use, which retries failed requests."""
    user = 0 if self.shares_client else threading.get_ident()
    options = options_in_use()
    with self._lock:
      made_for, client = self._clients.get(user, (None, None))
      if made_for is not options:
        client = self.new_client(options)
        self._clients[user] = options, client
      return client

  # What each store implements. `check_reachable` raises InputError if the bucket cannot be listed; `_get` returns the
  # bytes from start to end, exclusive, or to the object's end; `_failure` the HTTP status of a client's error, else 0,
  # and the reason. `_write_if`, `_read_version` and `_delete_if` are as those without the underscore, but raise the
  # client's errors.

  @property
  @abc.abstractmethod
  def install(self) -> str:
    """The command that installs the store's packages."""

  @abc.abstractmethod
  def new_client(self, options: PipelineOptions) -> Any: ...
  @abc.abstractmethod
  def check_reachable(self, path: str) -> None: ...
  @abc.abstractmethod
  def _head(self, path: str) -> FileStat: ...
  @abc.abstractmethod
  def _get(self, path: str, start: int, end: int) -> bytes: ...
  @abc.abstractmethod
  def _put(self, path: str, file: BinaryIO) -> None: ...
  @abc.abstractmethod
  def _write_if(self, path: str, data: bytes, version: str) -> str: ...
  @abc.abstractmethod
  def _read_version(self, path: str) -> tuple[bytes, str]: ...
  @abc.abstractmethod
  def _delete_if(self, path: str, version: str) -> None: ...
  @abc.abstractmethod
  def _failure(self, error: Exception) -> tuple[int, str]: ...

  def stat(self, path: str) -> FileStat | None:
    if not split_path(path)[1]:
      return None
    try:
      return self._head(path)
    except Exception as error:
      if self._failure(error)[0] not in (MISSING, *REFUSED):
        raise
      return None

  def open_to_read(self, path: str) -> BinaryIO:
    ranges = _Ranges(self, path)
    return cast(BinaryIO, io.BufferedReader(DownloaderStream(ranges), min(_RANGE_BYTES, ranges.size + 1)))

  def read_range(self, path: str, start: int, end: int) -> bytes:
    try:
      return self._get(path, start, end)
    except Exception as error:
      status, reason = self._failure(error)
      if status == _BEYOND_THE_END:  # the object is empty
        return b""
      if status == MISSING:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
      if status in REFUSED:
        raise InputError(
          f"{path} cannot be read with these credentials ({reason}): allow reading, or remove the object."
        ) from error
      raise

  def upload(self, path: str, file: BinaryIO) -> None:
    try:
      self._put(path, file)
    except Exception as error:
      status, reason = self._failure(error)
      if status not in REFUSED:
        raise
      raise _cannot_write(path, reason) from error

  def write_if(self, path: str, data: bytes, version: str) -> str | None:
    """Writes an object if it has this version; "" if missing.

    Returns its new version, or None if it has another. Raises UnconditionalError if the server says that it cannot.
    """
    try:
      return self._write_if(path, data, version)
    except Exception as error:
      status, reason = self._failure(error)
      if status == _UNKNOWN:
        raise UnconditionalError from error
      if status in REFUSED:
        raise _cannot_write(path, reason) from error
      if status not in _CHANGED or (status == MISSING and not version):  # there is no such bucket
        raise
      return None

  def read_version(self, path: str) -> tuple[bytes, str] | None:
    """Returns an object's bytes and version, or None if there is none."""
    try:
      return self._read_version(path)
    except Exception as error:
      if self._failure(error)[0] not in _CHANGED:
        raise
      return None

  def delete_if(self, path: str, version: str) -> None:
    """Deletes an object if it has this version."""
    try:
      self._delete_if(path, version)
    except Exception as error:
      if self._failure(error)[0] not in _CHANGED:
        raise


class _Ranges(Downloader):
  """Reads an object in ranges; opening reads the first."""

  def __init__(self, store: HttpStore, path: str):
    self._store, self._path = store, path
    self._first = store.read_range(path, 0, _RANGE_BYTES)
    self._size = len(self._first) if len(self._first) < _RANGE_BYTES else store._head(path).size_bytes

  @property
  def size(self) -> int:
    return self._size

  def get_range(self, start: int, end: int) -> bytes:
    if end <= len(self._first):
      return self._first[start:end]
    self._first = b""  # no longer needed: reads go forward
    return self._store.read_range(self._path, start, end)


def split_path(path: str) -> tuple[str, str]:
  """Returns (bucket, object name)."""
  bucket, _, name = path.partition("://")[2].partition("/")
  return bucket, name


def _cannot_write(path: str, reason: str) -> InputError:
  return InputError(
    f"{path} cannot be written with these credentials ({reason}): allow writing, or give another output."
  )


def cannot_delete(path: str, reason: str) -> PermissionError:
  return PermissionError(errno.EACCES, f"cannot be deleted ({reason})", path)


@functools.cache
def threads() -> ThreadPoolExecutor:
  """Returns the process's thread pool; its tasks must not wait for another."""
  return ThreadPoolExecutor(_THREADS)


os.register_at_fork(after_in_child=threads.cache_clear)  # threads do not survive a fork
