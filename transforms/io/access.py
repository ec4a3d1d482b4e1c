"""Checks before any work that a command's buckets can be reached.

Fails within seconds with one sentence; Beam itself would retry for minutes and print a traceback each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apache_beam.options.pipeline_options import S3Options

from beam_retrain.transforms.core.errors import InputError, first_line, flag
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.beam_internals import options_in_use
from beam_retrain.transforms.io.object_stores import gs

_WAIT_SECS = 5
_PROBE = ".beam-retrain-writes"


def check_reachable(*arguments: object) -> None:
  """Checks that each `s3://` and `gs://` bucket can be listed.

  Args:
    *arguments: of a command: paths, lists of paths; anything else is ignored.

  Raises:
    InputError: a bucket does not exist, its credentials are refused or missing, or the server does not answer.
  """
  checked = set()
  for path in _paths(arguments):
    scheme, _, rest = path.partition("://")
    bucket, _, prefix = rest.partition("/")
    if (scheme, bucket) in checked:
      continue
    checked.add((scheme, bucket))
    if scheme == "s3":
      _check_s3(path, bucket, prefix)
    elif scheme == "gs":
      _check_gs(path, bucket, prefix)


def check_writable(folder: str) -> None:
  """Writes and deletes a probe object in a remote folder.

  Raises:
    InputError: the credentials do not allow it.
  """
  path = f"{folder}/{_PROBE}"
  files.write_bytes(path, b"")
  try:
    files.delete([path])
  except PermissionError as error:
    raise InputError(
      f"these credentials cannot delete objects in {folder}, which replacing a model needs: allow it, or give another"
      f" {flag('output')}."
    ) from error


def _paths(argument: object) -> Iterator[str]:
  if isinstance(argument, str):
    yield argument
  elif isinstance(argument, list | tuple):
    for entry in argument:
      yield from _paths(entry)


def _check_s3(path: str, bucket: str, prefix: str) -> None:
  if not files.is_supported(path):
    raise InputError(f"{path}: s3:// needs packages that are not installed: pip install 'beam-retrain[aws]'.")
  from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
  )

  options = options_in_use().view_as(S3Options)
  endpoint = options.s3_endpoint_url or "the address of S3"
  try:
    _quick_client(options).list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
  except (NoCredentialsError, PartialCredentialsError) as error:
    raise InputError(
      f"{path} cannot be read without credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile."
    ) from error
  except (ConnectionError, HTTPClientError) as error:
    raise InputError(
      f"{path} cannot be reached: {endpoint} does not answer: check --s3_endpoint_url and the network."
    ) from error
  except ClientError as error:
    raise InputError(_refused_by_s3(path, bucket, error.response)) from error
  except (BotoCoreError, ValueError) as error:
    raise InputError(f"{path} cannot be reached ({_first(error)}): check the path and the --s3_ options.") from error


def _quick_client(options: S3Options) -> Any:
  """Returns a client like Beam's with short timeouts and no retries."""
  import boto3
  from botocore.config import Config

  return boto3.session.Session().client(
    service_name="s3",
    region_name=options.s3_region_name,
    api_version=options.s3_api_version,
    use_ssl=not options.s3_disable_ssl,
    verify=options.s3_verify,
    endpoint_url=options.s3_endpoint_url,
    aws_access_key_id=options.s3_access_key_id,
    aws_secret_access_key=options.s3_secret_access_key,
    aws_session_token=options.s3_session_token,
    config=Config(connect_timeout=_WAIT_SECS, read_timeout=_WAIT_SECS, retries={"total_max_attempts": 1}),
  )


def _refused_by_s3(path: str, bucket: str, response: dict[str, Any]) -> str:
  code, status = response["Error"].get("Code", ""), response.get("ResponseMetadata", {}).get("HTTPStatusCode")
  if code == "NoSuchBucket":
    return f"{path}: there is no bucket {bucket}: create it, or give another path."
  if status in (401, 403, 404):  # 404: what some servers answer for an unknown key
    return (
      f"{path}: the credentials are refused ({code}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to ones that may"
      f" list the bucket {bucket}."
    )
  if status in (301, 307, 400):
    return f"{path}: S3 refuses the request ({code}): check the bucket's name and --s3_region_name."
  return f"{path}: S3 cannot answer ({code or status}): try again later."


def _check_gs(path: str, bucket: str, prefix: str) -> None:
  if not files.is_supported(path):
    raise InputError(f"{path}: gs:// needs packages that are not installed: pip install 'apache-beam[gcp]'.")
  from google.api_core.exceptions import GoogleAPIError, NotFound
  from google.auth.exceptions import GoogleAuthError, TransportError
  from requests.exceptions import RequestException

  try:
    client = gs.new_client(options_in_use())
    found = client.list_blobs(bucket, prefix=prefix, max_results=1, timeout=_WAIT_SECS, retry=None)
    next(iter(found), None)
  except NotFound as error:
    raise InputError(f"{path}: there is no bucket {bucket}: create it, or give another path.") from error
  except (RequestException, TransportError) as error:
    raise InputError(f"{path} cannot be reached: Google Cloud Storage does not answer: check the network.") from error
  except (GoogleAPIError, GoogleAuthError, ValueError) as error:
    raise InputError(
      f"{path} cannot be read ({_first(error)}): run `gcloud auth application-default login`, or set"
      " GOOGLE_APPLICATION_CREDENTIALS to a key that may list the bucket."
    ) from error


def _first(error: Exception) -> str:
  return first_line(error).rstrip(".: ")
