"""`s3://`, by boto3.

Beam would create a client per call (a second of CPU time), leave truncated objects after errors, and retry for hours
without a server.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from apache_beam.options.pipeline_options import PipelineOptions, S3Options

from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.system.extras import install_command
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.io.beam_internals import options_in_use
from beam_retrain.transforms.io.object_stores.base import CHECK_SECS, FileStat, HttpStore, cannot_delete, split_path

_DELETED_AT_ONCE = 1000
_READ_ATTEMPTS = 3
_CONNECT_SECS, _READ_SECS, _ATTEMPTS = 10, 30, 8


class S3(HttpStore):
  shares_client = True

  @property
  def install(self) -> str:
    return install_command("aws")

  def new_client(self, options: PipelineOptions, config: Any = None) -> Any:
    """Returns boto3's client, as Beam configures it; `config` is botocore's.

    By default a server may be silent for half a minute; one that stays silent is an error within five minutes.
    """
    import boto3
    from botocore.config import Config

    patient = Config(
      connect_timeout=_CONNECT_SECS,
      read_timeout=_READ_SECS,
      retries={"total_max_attempts": _ATTEMPTS},
      tcp_keepalive=True,
    )
    s3 = options.view_as(S3Options)
    return boto3.session.Session().client(
      service_name="s3",
      region_name=s3.s3_region_name,
      api_version=s3.s3_api_version,
      use_ssl=not s3.s3_disable_ssl,
      verify=s3.s3_verify,
      endpoint_url=s3.s3_endpoint_url,
      aws_access_key_id=s3.s3_access_key_id,
      aws_secret_access_key=s3.s3_secret_access_key,
      aws_session_token=s3.s3_session_token,
      config=config or patient,
    )

  def check_reachable(self, path: str) -> None:
    from botocore import exceptions
    from botocore.config import Config

    bucket, prefix = split_path(path)
    endpoint = options_in_use().view_as(S3Options).s3_endpoint_url or "the address of S3"
    quick = Config(connect_timeout=CHECK_SECS, read_timeout=CHECK_SECS, retries={"total_max_attempts": 1})
    try:
      self.new_client(options_in_use(), quick).list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
      raise InputError(
        f"{path} cannot be read without credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile."
      ) from error
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
      raise InputError(
        f"{path} cannot be reached: {endpoint} does not answer: check --s3_endpoint_url and the network."
      ) from error
    except exceptions.ClientError as error:
      raise InputError(_refusal(path, bucket, *self._failure(error))) from error
    except (exceptions.BotoCoreError, ValueError) as error:
      reason = first_line(error).rstrip(".: ")
      raise InputError(f"{path} cannot be reached ({reason}): check the path and the --s3_ options.") from error

  def _head(self, path: str) -> FileStat:
    head = self.client.head_object(**_named(path))
    return FileStat(path, head["ContentLength"], head["LastModified"].timestamp())

  def _get(self, path: str, start: int, end: int) -> bytes:
    from botocore.exceptions import BotoCoreError

    def body() -> Any:
      return self.client.get_object(**_named(path), Range=f"bytes={start}-{end - 1}")["Body"]

    for _ in range(_READ_ATTEMPTS - 1):
      found = body()
      with contextlib.suppress(BotoCoreError):  # the connection broke during the body, which boto3 does not retry
        return bytes(found.read())
    return bytes(body().read())

  def _put(self, path: str, file: BinaryIO) -> None:
    from boto3.s3.transfer import TransferConfig

    self.client.upload_fileobj(file, **_named(path), Config=TransferConfig(use_threads=False))

  def _write_if(self, path: str, data: bytes, version: str) -> str:
    condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
    return str(self.client.put_object(Body=data, **_named(path), **condition)["ETag"])

  def _read_version(self, path: str) -> tuple[bytes, str]:
    answer = self.client.get_object(**_named(path))
    return answer["Body"].read(), answer["ETag"]

  def _delete_if(self, path: str, version: str) -> None:
    self.client.delete_object(**_named(path), IfMatch=version)

  def _failure(self, error: Exception) -> tuple[int, str]:
    from botocore.exceptions import ClientError

    if not isinstance(error, ClientError):
      return 0, ""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), error.response["Error"].get("Code", "")

  def list_prefix(self, prefix: str) -> Iterator[FileStat]:
    bucket, name = split_path(prefix)
    for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=name):
      for entry in page.get("Contents", ()):
        yield FileStat(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["LastModified"].timestamp())

  def children(self, folder: str) -> set[str]:
    bucket, prefix = split_path(f"{folder}/")
    pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    paths = (
      path
      for page in pages
      for listed, name in (("CommonPrefixes", "Prefix"), ("Contents", "Key"))
      for path in (entry[name] for entry in page.get(listed, ()))
    )
    return {path.removeprefix(prefix) for path in paths if path != prefix}

  def delete(self, paths: list[str]) -> None:
    bucket, _ = split_path(paths[0])
    for batch in batched(paths, _DELETED_AT_ONCE):
      keys = [{"Key": split_path(path)[1]} for path in batch]
      for error in self.client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", ()):
        raise cannot_delete(f"s3://{bucket}/{error['Key']}", error["Code"])


def _named(path: str) -> dict[str, str]:
  """Returns boto3's arguments that name an object."""
  bucket, key = split_path(path)
  return {"Bucket": bucket, "Key": key}


def _refusal(path: str, bucket: str, status: int, code: str) -> str:
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
