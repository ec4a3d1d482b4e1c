"""`gs://`, asked by Google's client, as Beam makes it, where Beam would make one for each call, take `[a]` in the name
of a folder for a pattern, or leave half an object behind a fault. Each thread has a client of its own: connections are
not for several."""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.transforms.io.beam_internals import options_in_use
from beam_retrain.transforms.io.object_stores.base import (
  REFUSED,
  FileStat,
  may_not_read,
  may_not_write,
  open_ranges,
  threads,
)

_OF_THREAD = threading.local()


def stat(path: str) -> FileStat | None:
  from google.api_core.exceptions import GoogleAPICallError, NotFound

  if not _bucket_and_name(path)[1]:
    return None
  try:
    return _stat_of(_described(path))
  except NotFound:
    return None
  except GoogleAPICallError as error:
    if error.code in REFUSED:
      return None
    raise


def open_to_read(path: str) -> BinaryIO:
  return open_ranges(lambda start, end: _read(path, start, end), lambda: _described(path).size)


def _read(path: str, start: int, end: int) -> bytes:
  from google.api_core.exceptions import GoogleAPICallError, NotFound, RequestRangeNotSatisfiable

  try:
    data: bytes = _blob(path).download_as_bytes(start=start, end=end - 1, raw_download=True)
    return data
  except RequestRangeNotSatisfiable:  # of an empty object any
    return b""
  except NotFound as error:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
  except GoogleAPICallError as error:
    if error.code not in REFUSED:
      raise
    raise may_not_read(path, _reason(error)) from error


def list_prefix(prefix: str) -> Iterator[FileStat]:
  bucket, name = _bucket_and_name(prefix)
  yield from map(_stat_of, _client().list_blobs(bucket, prefix=name))


def subfolders(folder: str) -> set[str]:
  bucket, prefix = _bucket_and_name(f"{folder}/")
  listed = _client().list_blobs(bucket, prefix=prefix, delimiter="/")
  return {found.removeprefix(prefix)[:-1] for page in listed.pages for found in page.prefixes}


def upload(path: str, file: BinaryIO) -> None:
  from google.api_core.exceptions import GoogleAPICallError

  try:
    _blob(path).upload_from_file(file)
  except GoogleAPICallError as error:
    if error.code not in REFUSED:
      raise
    raise may_not_write(path, _reason(error)) from error


def delete(paths: list[str]) -> None:
  # Not in batches, which not every server of this protocol can do.
  list(threads().map(_delete, paths))


def _delete(path: str) -> None:
  from google.api_core.exceptions import GoogleAPICallError, NotFound

  try:
    _blob(path).delete()
  except NotFound:
    pass
  except GoogleAPICallError as error:
    if error.code not in REFUSED:
      raise
    raise PermissionError(errno.EACCES, f"cannot be deleted ({_reason(error)})", path) from error


def _stat_of(blob: Any) -> FileStat:
  return FileStat(f"gs://{blob.bucket.name}/{blob.name}", blob.size, blob.updated.timestamp())


def _described(path: str) -> Any:
  """Returns the object with its size and time."""
  blob = _blob(path)
  blob.reload()
  return blob


def _blob(path: str) -> Any:
  bucket, name = _bucket_and_name(path)
  return _client().bucket(bucket).blob(name)


def _bucket_and_name(path: str) -> tuple[str, str]:
  bucket, _, name = path.removeprefix("gs://").partition("/")
  return bucket, name


def _reason(error: Any) -> str:
  return str(error.reason or error.code)


def _client() -> Any:
  """Returns this thread's client, made anew where the options are others, or the process was forked. It tries again by
  itself where a server fails, for two minutes."""
  options = options_in_use()
  if getattr(_OF_THREAD, "pid", None) != os.getpid() or _OF_THREAD.options is not options:
    _OF_THREAD.client = new_client(options)
    _OF_THREAD.pid, _OF_THREAD.options = os.getpid(), options
  return _OF_THREAD.client


def new_client(options: PipelineOptions) -> Any:
  """Returns Google's client, with the credentials that Beam would find, or with none: what is public can be read."""
  from apache_beam.io.gcp.gcsio import create_storage_client

  return create_storage_client(options, use_credentials=_has_credentials())


@functools.cache
def _has_credentials() -> bool:
  """Asks once: Beam would ask for a quarter of a minute."""
  import google.auth
  from google.auth.exceptions import DefaultCredentialsError

  try:
    google.auth.default()
  except DefaultCredentialsError:
    return False
  return True
