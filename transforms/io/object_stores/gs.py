"""`gs://`, by Google's own client.

Beam would create a client per call, read `[a]` in a folder's name as a pattern, and leave truncated objects after
errors. Each thread has its own client: connections are not thread-safe.
"""

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
  except RequestRangeNotSatisfiable:  # the object is empty
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
  # Not every server of this protocol supports batches.
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
  """Returns this thread's client, renewed after a fork or new options.

  It retries failed requests for two minutes.
  """
  options = options_in_use()
  if getattr(_OF_THREAD, "pid", None) != os.getpid() or _OF_THREAD.options is not options:
    _OF_THREAD.client = new_client(options)
    _OF_THREAD.pid, _OF_THREAD.options = os.getpid(), options
  return _OF_THREAD.client


def new_client(options: PipelineOptions) -> Any:
  """Returns Google's client, without credentials if there are none."""
  from apache_beam.io.gcp.gcsio import create_storage_client

  return create_storage_client(options, use_credentials=_has_credentials())


@functools.cache
def _has_credentials() -> bool:
  """Looks for credentials once, where Beam would retry for 15 seconds."""
  import google.auth
  from google.auth.exceptions import DefaultCredentialsError

  try:
    google.auth.default()
  except DefaultCredentialsError:
    return False
  return True
