"""Object stores: what `files` does with `s3://`, `gs://` and whatever else Beam has a file system for.

An object is there whole or not at all, and there are no folders, only names with slashes in them. Beam's file systems
do what they can; `s3://` is asked directly where Beam would make a client for each call, which takes a second of a
core, leave half an object behind a fault, or fail with an empty one. boto3's client is shared by all threads; Beam's,
around it, is its thread's alone, as it reads one stream at a time.
"""

from __future__ import annotations

import copy
import errno
import functools
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from transforms.core.errors import InputError

_S3 = "s3"
_THREADS = 10  # as many connections as boto3's client has
_DELETED_AT_ONCE = 1000
_REFUSED = (401, 403)
_LOCK = threading.Lock()
_CLIENTS: dict[str, Any] = {}
_OF_THREAD = threading.local()


class FileStat(NamedTuple):
  path: str
  size_bytes: int
  modified_secs: float


def stat(path: str) -> FileStat | None:
  """Returns what is known of one object, or None where it is not there, or these credentials may not see it."""
  if not _is_s3(path):
    try:
      entry = FileSystems.get_filesystem(path).metadata(path)
    except BeamIOError:
      return None
    return FileStat(entry.path, entry.size_in_bytes, entry.last_updated_in_seconds or 0.0)
  from botocore.exceptions import ClientError

  bucket, key = _bucket_and_key(path)
  if not key:
    return None
  try:
    found = _boto().head_object(Bucket=bucket, Key=key)
  except ClientError as error:
    if _status(error) in (404, *_REFUSED):
      return None
    raise
  return FileStat(path, found["ContentLength"], found["LastModified"].timestamp())


def open_to_read(path: str) -> BinaryIO:
  if _is_s3(path):
    return cast(BinaryIO, _s3().open(path, "rb"))
  return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))


def list_prefix(prefix: str) -> Iterator[FileStat]:
  """Yields all objects whose path begins so, in the order of their names. What stands for an empty folder is none."""
  for found in _list_s3(prefix) if _is_s3(prefix) else _list_others(prefix):
    if not found.path.endswith("/"):
      yield found


def _list_s3(prefix: str) -> Iterator[FileStat]:
  bucket, key = _bucket_and_key(prefix)
  for page in _boto().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
    for entry in page.get("Contents", ()):
      yield FileStat(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["LastModified"].timestamp())


def _list_others(prefix: str) -> Iterator[FileStat]:
  for entry in FileSystems.match([f"{prefix}**"])[0].metadata_list:
    yield FileStat(entry.path, entry.size_in_bytes, entry.last_updated_in_seconds or 0.0)


def subfolders(folder: str) -> set[str]:
  """Returns the names that objects below a folder have in common up to the next slash."""
  prefix = f"{folder}/"
  if not _is_s3(folder):
    inside = (found.path.removeprefix(prefix) for found in list_prefix(prefix))
    return {name.split("/")[0] for name in inside if "/" in name}
  bucket, key = _bucket_and_key(prefix)
  pages = _boto().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key, Delimiter="/")
  return {entry["Prefix"].removeprefix(key).rstrip("/") for page in pages for entry in page.get("CommonPrefixes", ())}


def upload(path: str, file: BinaryIO) -> None:
  """Writes what is in a local file that is open, from where it stands, to `path`.

  Raises:
    InputError: these credentials may not.
  """
  if not _is_s3(path):
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as target:
      shutil.copyfileobj(file, target)
    return
  from boto3.s3.transfer import TransferConfig
  from botocore.exceptions import ClientError

  bucket, key = _bucket_and_key(path)
  try:
    _boto().upload_fileobj(file, bucket, key, Config=TransferConfig(use_threads=False))
  except ClientError as error:
    if _status(error) not in _REFUSED:
      raise
    raise InputError(
      f"{path} cannot be written with these credentials ({error.response['Error']['Code']}): let them write there, or"
      " give another place."
    ) from error


def delete(path: str) -> None:
  """Deletes an object and all that lies below it as a folder. What is not there is no error.

  Never more: a name that begins alike is another one, and a whole bucket is nobody's output.

  Raises:
    ValueError: `path` names no object, or has a step up in it.
  """
  path = path.rstrip("/")
  bucket, _, key = path.partition("://")[2].partition("/")
  if not bucket or not key or any(step in ("", ".", "..") for step in key.split("/")):
    raise ValueError(f"{path} is not for deleting")
  delete_objects([*(found.path for found in list_prefix(f"{path}/")), path])


def delete_objects(paths: list[str]) -> None:
  """Deletes objects of one bucket, and nothing that lies below them. What is not there is no error.

  Raises:
    ValueError: one would be taken for a pattern.
  """
  if not paths:
    return
  if _is_s3(paths[0]):
    _delete_s3(paths)
  elif marked := [name for name in paths if set("*?[") & set(name)]:
    raise ValueError(f"{marked[0]} would be taken for a pattern")
  else:
    FileSystems.delete(paths)


def _delete_s3(paths: list[str]) -> None:
  bucket, _ = _bucket_and_key(paths[0])
  for start in range(0, len(paths), _DELETED_AT_ONCE):
    keys = [{"Key": _bucket_and_key(path)[1]} for path in paths[start : start + _DELETED_AT_ONCE]]
    for error in _boto().delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", ()):
      raise PermissionError(errno.EACCES, f"cannot be deleted ({error['Code']})", f"s3://{bucket}/{error['Key']}")


@functools.cache
def threads() -> ThreadPoolExecutor:
  """Returns the threads that ask for many objects side by side."""
  return ThreadPoolExecutor(_THREADS)


def _is_s3(path: str) -> bool:
  return bool(FileSystems.get_scheme(path) == _S3)


def _bucket_and_key(path: str) -> tuple[str, str]:
  bucket, _, key = path.removeprefix("s3://").partition("/")
  return bucket, key


def _status(error: Any) -> int:
  return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _s3() -> Any:
  """Returns this thread's `S3IO`."""
  client = _client()
  if getattr(_OF_THREAD, "of", None) is not client:
    from apache_beam.io.aws.s3io import S3IO

    _OF_THREAD.of, _OF_THREAD.s3 = client, S3IO(client=copy.copy(client))
  return _OF_THREAD.s3


def _boto() -> Any:
  """Returns boto3's client, which tries again by itself where a server fails."""
  return _client().client


def _client() -> Any:
  """Returns this process's client of Beam's, made anew where the options are others; nothing is read by it."""
  from apache_beam.io.aws.clients.s3.boto3_client import Client

  options = FileSystems._pipeline_options
  with _LOCK:
    if "client" not in _CLIENTS or _CLIENTS["options"] is not options:
      _CLIENTS.update(client=Client(options=options or PipelineOptions(flags=[])), options=options)
    return _CLIENTS["client"]


def _forget() -> None:
  """In a process that was forked: neither are connections shared, nor are the threads there."""
  global _LOCK
  _LOCK = threading.Lock()
  _CLIENTS.clear()
  threads.cache_clear()


os.register_at_fork(after_in_child=_forget)
