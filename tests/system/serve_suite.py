"""A real server, in a process of its own, on a model of MNIST; and how programs ask it."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.helpers import ROOT, encode

IMAGES, NIGHTLY = 1_500, 60


def make_work(mnist: Path, work: Path) -> None:
  """Makes `data` (MNIST as class folders), what commands write of it, and two `nights`, the second worse."""
  from beam_retrain.pipelines.cli import main

  pixels = np.frombuffer(gzip.decompress((mnist / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
  labels = np.frombuffer(gzip.decompress((mnist / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
  pixels = pixels.reshape(-1, 28, 28)
  for number, image in enumerate(pixels[:IMAGES]):
    for folder in ("data", "nightly") if number < NIGHTLY else ("data",):
      path = work / folder / str(labels[number]) / f"{number}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(encode(image))
  model = f"--model={work / 'model'}"
  trunk = ("--trunk=bundled", "--testing_percentage=40")
  assert main(["bottlenecks", f"--input={work / 'data'}", f"--output={work / 'bottlenecks'}", *trunk]) == 0
  assert main(["train", f"--input={work / 'bottlenecks'}", f"--output={work / 'model'}"]) == 0
  assert main(["evaluate", f"--input={work / 'data'}", f"--output={work / 'evaluation'}", model]) == 0
  nights = (f"--input={work / 'nightly'}", f"--history={work / 'nights'}", model, "--split=all", "--max_drop=0")
  assert main(["reevaluate", "--date=2026-11-01", *nights]) == 0
  zeros, ones = sorted((work / "nightly" / "0").iterdir()), pixels[IMAGES:][labels[IMAGES:] == 1]  # new ones
  for path, one in zip(zeros[:3], ones, strict=False):
    path.write_bytes(encode(one))
  assert main(["reevaluate", "--date=2026-11-02", *nights]) == 1


def everything(work: Path) -> tuple[str, ...]:
  """Returns the flags that serve all of it."""
  names = {"bottlenecks": "bottlenecks", "evaluation": "evaluation", "history": "nights"}
  return (f"--model={work / 'model'}", *(f"--{flag}={work / name}" for flag, name in names.items()))


class Answer(NamedTuple):
  status: int
  headers: Mapping[str, str]
  body: bytes

  @property
  def json(self) -> Any:
    return json.loads(self.body)


class Served(NamedTuple):
  """A server at work."""

  process: subprocess.Popen[str]
  port: int

  @property
  def address(self) -> str:
    return f"http://127.0.0.1:{self.port}"

  def ask(self, path: str, body: bytes | str | None = None, **headers: str) -> Answer:
    """Asks once; names of headers have `_` for `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
    with contextlib.closing(connection):
      given = {name.replace("_", "-"): value for name, value in headers.items()}
      connection.request("GET" if body is None else "POST", path, body, given)
      answer = connection.getresponse()
      return Answer(answer.status, dict(answer.getheaders()), answer.read())

  def predict(self, images: Mapping[str, bytes]) -> Any:
    """Returns the answer to images by key, in rows."""
    return self.ask("/v1/models/model:predict", as_rows(images)).json

  def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
    """Ends it; returns the exit code and what it printed since."""
    self.process.send_signal(number)
    out, _ = self.process.communicate(timeout=300)
    return self.process.returncode, out


def as_rows(images: Mapping[str, bytes]) -> str:
  rows = [{"key": key, "image_bytes": {"b64": base64.b64encode(data).decode()}} for key, data in images.items()]
  return json.dumps({"instances": rows})


def as_users_have_it() -> dict[str, str]:
  """Returns an environment in which TensorFlow's messages are not hidden by the tests."""
  return {
    **{name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
    "PYTHONPATH": str(ROOT),
  }


@contextlib.contextmanager
def served(*flags: str, cwd: Path | None = None, port: int = 0) -> Iterator[Served]:
  """Starts a server, and kills it if it is still there at the end."""
  command = [sys.executable, "-m", "beam_retrain.pipelines.serve", f"--port={port}", *flags]
  with subprocess.Popen(
    command,
    cwd=cwd or ROOT,
    env=as_users_have_it(),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as process:
    try:
      assert process.stdout
      lines = []
      for line in process.stdout:
        lines.append(line)
        if found := re.match(r"serving at http://[^/]*:(\d+)/", line):
          break
      else:
        raise AssertionError("".join(lines))
      one = Served(process, int(found[1]))
      assert one.ask("/healthz").status == 200  # it takes signals by now
      yield one
    finally:
      process.kill()
