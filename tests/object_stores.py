"""Servers of object stores for tests, on this machine. Each keeps its objects as files below one folder, which is what
the tests look at: `make engines` brings them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.transforms.io import files
from tests.system.engine_suite import engine_file

KEY, SECRET = "tests", "only for tests"
NO_GOOGLE = {"NO_GCE_CHECK": "true", "CLOUDSDK_CONFIG": os.devnull, "GOOGLE_APPLICATION_CREDENTIALS": ""}
_PATIENCE_SECS = 120


class Server(NamedTuple):
  """Attributes:
  bucket: where the objects of the bucket lie as files.
  url: of the bucket, `s3://bucket` for one.
  flags: a command's.
  """

  bucket: Path
  url: str
  flags: Sequence[str]

  def use(self) -> None:
    files.use_options(PipelineOptions(flags=list(self.flags)))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
  folder = tmp_path_factory.mktemp("s3")
  for name in ("objects/bucket", "attributes"):
    (folder / name).mkdir(parents=True)
  with serve_s3(folder) as found, pytest.MonkeyPatch.context() as patch:
    patch.setenv("AWS_ACCESS_KEY_ID", KEY)
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    yield found
    files.use_options()


@contextlib.contextmanager
def serve_s3(folder: Path, *more: str) -> Iterator[Server]:
  """Serves `folder/objects`, whose folders are the buckets."""
  port = _free_port()
  command = [
    *(str(engine_file("versitygw-v1.8.0", "versitygw")), "--port", f"127.0.0.1:{port}", *more),
    *("posix", "--sidecar", str(folder / "attributes"), str(folder / "objects")),
  ]
  environment = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET, "HOME": str(folder)}
  with _serving(command, environment, port, folder / "log"):
    flags = [f"--s3_endpoint_url=http://127.0.0.1:{port}", "--s3_region_name=us-east-1"]
    yield Server(folder / "objects" / "bucket", "s3://bucket", flags)


@pytest.fixture(scope="module")
def gs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
  """Google's own client finds it by its environment, and needs no credentials."""
  folder, port = tmp_path_factory.mktemp("gs"), _free_port()
  (folder / "objects" / "bucket").mkdir(parents=True)
  address = f"127.0.0.1:{port}"
  command = [
    *(str(engine_file("fake-gcs-server-v1.56.1", "fake-gcs-server")), "-scheme", "http", "-host", "127.0.0.1"),
    *("-port", str(port), "-public-host", address, "-external-url", f"http://{address}", "-log-level", "warn"),
    *("-backend", "filesystem", "-filesystem-root", str(folder / "objects")),
  ]
  with _serving(command, {"HOME": str(folder)}, port, folder / "log"), pytest.MonkeyPatch.context() as patch:
    for name, value in {**NO_GOOGLE, "STORAGE_EMULATOR_HOST": f"http://{address}"}.items():
      patch.setenv(name, value)
    yield Server(folder / "objects" / "bucket", "gs://bucket", [])
    files.use_options()


@contextlib.contextmanager
def _serving(command: Sequence[str], environment: Mapping[str, str], port: int, log: Path) -> Iterator[None]:
  with log.open("ab") as said:
    process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
    try:
      _wait_for(port, process, log)
      yield
    finally:
      process.terminate()
      process.wait(_PATIENCE_SECS)


def _free_port() -> int:
  with socket.create_server(("127.0.0.1", 0)) as free:
    port: int = free.getsockname()[1]
  return port


def _wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
  until = time.monotonic() + _PATIENCE_SECS
  while time.monotonic() < until and process.poll() is None:
    try:
      socket.create_connection(("127.0.0.1", port), 1).close()
      return
    except OSError:
      time.sleep(0.1)
  raise AssertionError(log.read_text())
