"""`gs://`, asked by Google's client, as Beam makes it, where Beam would make one for each call, take `[a]` in the name
of a folder for a pattern, or leave half an object behind a fault. Each thread has a client of its own: connections are
not for several."""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from transforms.object_stores.protocol import REFUSED, FileStat, may_not_write
from transforms.object_stores.threads import threads

_OF_THREAD = threading.local()


def stat(path: str) -> FileStat | None:
  from google.api_core.exceptions import GoogleAPICallError

  bucket, name = _bucket_and_name(path)
  if not name:
    return None
  try:
    found = _gcs().client.bucket(bucket).get_blob(name)
  except GoogleAPICallError as error:
    if error.code in REFUSED:
      return None
    raise
  return _stat_of(found) if found else None


def open_to_read(path: str) -> BinaryIO:
  return cast(BinaryIO, _gcs().open(path, "rb"))


def list_prefix(prefix: str) -> Iterator[FileStat]:
  bucket, name = _bucket_and_name(prefix)
  yield from map(_stat_of, _gcs().client.list_blobs(bucket, prefix=name))


def subfolders(folder: str) -> set[str]:
  bucket, name = _bucket_and_name(f"{folder}/")
  listed = _gcs().client.list_blobs(bucket, prefix=name, delimiter="/")
  return {found.removeprefix(name).rstrip("/") for page in listed.pages for found in page.prefixes}


def upload(path: str, file: BinaryIO) -> None:
  from google.api_core.exceptions import GoogleAPICallError

  bucket, name = _bucket_and_name(path)
  try:
    _gcs().client.bucket(bucket).blob(name).upload_from_file(file)
  except GoogleAPICallError as error:
    if error.code not in REFUSED:
      raise
    raise may_not_write(path, error.reason or error.code) from error


def delete(paths: list[str]) -> None:
  # Not in batches, which not every server of this protocol can do.
  list(threads().map(_delete, paths))


def _delete(path: str) -> None:
  from google.api_core.exceptions import GoogleAPICallError, NotFound

  bucket, name = _bucket_and_name(path)
  try:
    _gcs().client.bucket(bucket).delete_blob(name)
  except NotFound:
    pass
  except GoogleAPICallError as error:
    if error.code not in REFUSED:
      raise
    raise PermissionError(errno.EACCES, f"cannot be deleted ({error.reason or error.code})", path) from error


def _stat_of(blob: Any) -> FileStat:
  return FileStat(f"gs://{blob.bucket.name}/{blob.name}", blob.size, blob.updated.timestamp())


def _bucket_and_name(path: str) -> tuple[str, str]:
  bucket, _, name = path.removeprefix("gs://").partition("/")
  return bucket, name


def _gcs() -> Any:
  """Returns this thread's `GcsIO`, made anew where the options are others, or the process was forked."""
  options = FileSystems._pipeline_options or PipelineOptions(flags=[])
  made_for = (os.getpid(), options)
  if getattr(_OF_THREAD, "made_for", None) != made_for:
    from apache_beam.io.gcp.gcsio import GcsIO

    _OF_THREAD.gcs, _OF_THREAD.made_for = GcsIO(new_client(options), options), made_for
  return _OF_THREAD.gcs


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
