"""`s3://`, asked by boto3 where Beam would make a client for each call, which takes a second of a core, leave half an
object behind a fault, or fail with an empty one. boto3's client is shared by all threads; Beam's, around it, is its
thread's alone, as it reads one stream at a time."""

from __future__ import annotations

import copy
import errno
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from transforms.object_stores.protocol import REFUSED, FileStat, may_not_write

_DELETED_AT_ONCE = 1000
_LOCK = threading.Lock()
_CLIENTS: dict[str, Any] = {}
_OF_THREAD = threading.local()


def stat(path: str) -> FileStat | None:
  from botocore.exceptions import ClientError

  bucket, key = _bucket_and_key(path)
  if not key:
    return None
  try:
    found = _boto().head_object(Bucket=bucket, Key=key)
  except ClientError as error:
    if _status(error) in (404, *REFUSED):
      return None
    raise
  return FileStat(path, found["ContentLength"], found["LastModified"].timestamp())


def open_to_read(path: str) -> BinaryIO:
  client = _client()
  if getattr(_OF_THREAD, "of", None) is not client:
    from apache_beam.io.aws.s3io import S3IO

    _OF_THREAD.of, _OF_THREAD.s3 = client, S3IO(client=copy.copy(client))
  return cast(BinaryIO, _OF_THREAD.s3.open(path, "rb"))


def list_prefix(prefix: str) -> Iterator[FileStat]:
  bucket, key = _bucket_and_key(prefix)
  for page in _boto().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
    for entry in page.get("Contents", ()):
      yield FileStat(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["LastModified"].timestamp())


def subfolders(folder: str) -> set[str]:
  bucket, key = _bucket_and_key(f"{folder}/")
  pages = _boto().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key, Delimiter="/")
  return {entry["Prefix"].removeprefix(key).rstrip("/") for page in pages for entry in page.get("CommonPrefixes", ())}


def upload(path: str, file: BinaryIO) -> None:
  from boto3.s3.transfer import TransferConfig
  from botocore.exceptions import ClientError

  bucket, key = _bucket_and_key(path)
  try:
    _boto().upload_fileobj(file, bucket, key, Config=TransferConfig(use_threads=False))
  except ClientError as error:
    if _status(error) not in REFUSED:
      raise
    raise may_not_write(path, error.response["Error"]["Code"]) from error


def delete(paths: list[str]) -> None:
  bucket, _ = _bucket_and_key(paths[0])
  for start in range(0, len(paths), _DELETED_AT_ONCE):
    keys = [{"Key": _bucket_and_key(path)[1]} for path in paths[start : start + _DELETED_AT_ONCE]]
    for error in _boto().delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", ()):
      raise PermissionError(errno.EACCES, f"cannot be deleted ({error['Code']})", f"s3://{bucket}/{error['Key']}")


def _bucket_and_key(path: str) -> tuple[str, str]:
  bucket, _, key = path.removeprefix("s3://").partition("/")
  return bucket, key


def _status(error: Any) -> int:
  return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


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
  """In a process that was forked: connections are not shared."""
  global _LOCK
  _LOCK = threading.Lock()
  _CLIENTS.clear()


os.register_at_fork(after_in_child=_forget)
