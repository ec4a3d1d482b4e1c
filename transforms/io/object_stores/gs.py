"""`gs://`, by Google's own client.

Beam would create a client per call, read `[a]` in a folder's name as a pattern, and leave truncated objects after
errors.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, BinaryIO

from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.io.beam_internals import options_in_use
from beam_retrain.transforms.io.object_stores.base import (
  CHECK_SECS,
  MISSING,
  REFUSED,
  FileStat,
  HttpStore,
  cannot_delete,
  split_path,
  threads,
)


class GoogleStorage(HttpStore):
  shares_client = False  # its connections are not thread-safe

  @property
  def install(self) -> str:
    return "pip install 'apache-beam[gcp]'"

  def new_client(self, options: PipelineOptions) -> Any:
    """Returns Google's client, without credentials if there are none."""
    from apache_beam.io.gcp.gcsio import create_storage_client

    return create_storage_client(options, use_credentials=_has_credentials())

  def check_reachable(self, path: str) -> None:
    from google.api_core.exceptions import GoogleAPIError, NotFound
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests.exceptions import RequestException

    bucket, prefix = split_path(path)
    try:
      client = self.new_client(options_in_use())
      next(iter(client.list_blobs(bucket, prefix=prefix, max_results=1, timeout=CHECK_SECS, retry=None)), None)
    except NotFound as error:
      raise InputError(f"{path}: there is no bucket {bucket}: create it, or give another path.") from error
    except (RequestException, TransportError) as error:
      raise InputError(f"{path} cannot be reached: Google Cloud Storage does not answer: check the network.") from error
    except (GoogleAPIError, GoogleAuthError, ValueError) as error:
      raise InputError(
        f"{path} cannot be read ({first_line(error).rstrip('.: ')}): run `gcloud auth application-default login`, or"
        " set GOOGLE_APPLICATION_CREDENTIALS to a key that may list the bucket."
      ) from error

  def _head(self, path: str) -> FileStat:
    blob = self._blob(path)
    blob.reload()
    return _stat_of(blob)

  def _get(self, path: str, start: int, end: int) -> bytes:
    data: bytes = self._blob(path).download_as_bytes(start=start, end=end - 1, raw_download=True)
    return data

  def _put(self, path: str, file: BinaryIO) -> None:
    self._blob(path).upload_from_file(file)

  def _write_if(self, path: str, data: bytes, version: str) -> str:
    blob = self._blob(path)
    blob.upload_from_string(data, if_generation_match=int(version or 0))
    return str(blob.generation)

  def _read_version(self, path: str) -> tuple[bytes, str]:
    blob = self._blob(path)
    blob.reload()
    generation = blob.generation
    return blob.download_as_bytes(if_generation_match=generation, raw_download=True), str(generation)

  def _delete_if(self, path: str, version: str) -> None:
    self._blob(path).delete(if_generation_match=int(version))

  def _failure(self, error: Exception) -> tuple[int, str]:
    from google.api_core.exceptions import GoogleAPICallError

    return (error.code or 0, str(error.reason or error.code)) if isinstance(error, GoogleAPICallError) else (0, "")

  def list_prefix(self, prefix: str) -> Iterator[FileStat]:
    bucket, name = split_path(prefix)
    yield from map(_stat_of, self.client.list_blobs(bucket, prefix=name))

  def children(self, folder: str) -> set[str]:
    bucket, prefix = split_path(f"{folder}/")
    listed = self.client.list_blobs(bucket, prefix=prefix, delimiter="/")
    paths = (path for page in listed.pages for path in (*page.prefixes, *(blob.name for blob in page)))
    return {path.removeprefix(prefix) for path in paths if path != prefix}

  def delete(self, paths: list[str]) -> None:
    list(threads().map(self._delete, paths))  # not every server of this protocol supports batches

  def _delete(self, path: str) -> None:
    try:
      self._blob(path).delete()
    except Exception as error:
      status, reason = self._failure(error)
      if status in REFUSED:
        raise cannot_delete(path, reason) from error
      if status != MISSING:
        raise

  def _blob(self, path: str) -> Any:
    bucket, name = split_path(path)
    return self.client.bucket(bucket).blob(name)


def _stat_of(blob: Any) -> FileStat:
  return FileStat(f"gs://{blob.bucket.name}/{blob.name}", blob.size, blob.updated.timestamp())


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
