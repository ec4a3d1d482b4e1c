"""`s3://`, by boto3.

Beam would create a client per call (a second of CPU time), leave truncated objects after errors, and retry for hours
without a server. All threads share one client.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from beam_retrain.transforms.io.beam_internals import options_in_use
from beam_retrain.transforms.io.object_stores.base import REFUSED, FileStat, may_not_read, may_not_write, open_ranges

_DELETED_AT_ONCE = 1000
_READ_ATTEMPTS = 3
_NOT_THERE, _BEYOND_THE_END = 404, 416  # HTTP
_LOCK = threading.Lock()
_CLIENTS: dict[str, Any] = {}


def stat(path: str) -> FileStat | None:
  from botocore.exceptions import ClientError

  if not _named(path)["Key"]:
    return None
  try:
    found = _boto().head_object(**_named(path))
  except ClientError as error:
    if _status(error) in (_NOT_THERE, *REFUSED):
      return None
    raise
  return FileStat(path, found["ContentLength"], found["LastModified"].timestamp())


def open_to_read(path: str) -> BinaryIO:
  return open_ranges(
    lambda start, end: _read(path, start, end), lambda: _boto().head_object(**_named(path))["ContentLength"]
  )


def _read(path: str, start: int, end: int) -> bytes:
  from botocore.exceptions import BotoCoreError, ClientError

  attempt = 1
  while True:
    try:
      data: bytes = _boto().get_object(**_named(path), Range=f"bytes={start}-{end - 1}")["Body"].read()
      return data
    except ClientError as error:
      if _status(error) == _BEYOND_THE_END:
        return b""
      if _status(error) == _NOT_THERE:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
      if _status(error) in REFUSED:
        raise may_not_read(path, error.response["Error"]["Code"]) from error
      raise
    except BotoCoreError:  # the connection broke during the body, which boto3 does not retry
      if attempt == _READ_ATTEMPTS:
        raise
      attempt += 1


def list_prefix(prefix: str) -> Iterator[FileStat]:
  named = _named(prefix)
  for page in _boto().get_paginator("list_objects_v2").paginate(Bucket=named["Bucket"], Prefix=named["Key"]):
    for entry in page.get("Contents", ()):
      yield FileStat(f"s3://{named['Bucket']}/{entry['Key']}", entry["Size"], entry["LastModified"].timestamp())


def subfolders(folder: str) -> set[str]:
  bucket, prefix = _named(f"{folder}/").values()
  pages = _boto().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
  return {entry["Prefix"].removeprefix(prefix)[:-1] for page in pages for entry in page.get("CommonPrefixes", ())}


def upload(path: str, file: BinaryIO) -> None:
  from boto3.s3.transfer import TransferConfig
  from botocore.exceptions import ClientError

  try:
    _boto().upload_fileobj(file, **_named(path), Config=TransferConfig(use_threads=False))
  except ClientError as error:
    if _status(error) not in REFUSED:
      raise
    raise may_not_write(path, error.response["Error"]["Code"]) from error


def delete(paths: list[str]) -> None:
  bucket = _named(paths[0])["Bucket"]
  for start in range(0, len(paths), _DELETED_AT_ONCE):
    keys = [{"Key": _named(path)["Key"]} for path in paths[start : start + _DELETED_AT_ONCE]]
    for error in _boto().delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", ()):
      raise PermissionError(errno.EACCES, f"cannot be deleted ({error['Code']})", f"s3://{bucket}/{error['Key']}")


def _named(path: str) -> dict[str, str]:
  """Returns boto3's arguments that name an object."""
  bucket, _, key = path.removeprefix("s3://").partition("/")
  return {"Bucket": bucket, "Key": key}


def _status(error: Any) -> int:
  return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _boto() -> Any:
  """Returns the process's client, renewed after a fork or new options.

  It retries failed requests for some seconds.
  """
  from apache_beam.io.aws.clients.s3.boto3_client import Client

  options = options_in_use()
  with _LOCK:
    if _CLIENTS.get("options") is not options:
      _CLIENTS.update(client=Client(options=options).client, options=options)
    return _CLIENTS["client"]


def _forget() -> None:
  """Drops the client after a fork: connections cannot be shared."""
  global _LOCK
  _LOCK = threading.Lock()
  _CLIENTS.clear()


os.register_at_fork(after_in_child=_forget)
