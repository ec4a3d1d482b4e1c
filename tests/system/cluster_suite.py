"""A cluster for tests, and a job that is long enough to be spread over it, or to be disturbed."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from beam_retrain.pipelines import bottlenecks
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from tests.helpers import ROOT
from tests.system.engine_suite import ONE_WORKER, engine_file

CLUSTER = ROOT / "deploy" / "engines" / "cluster.py"
COPIES = 4


class Running(NamedTuple):
  """A cluster; `flags` are a job's."""

  folder: Path
  flags: list[str]

  def flag(self, name: str) -> str:
    return next(flag.partition("=")[2] for flag in self.flags if flag.startswith(f"--{name}="))


def cluster(action: str, engine: str, engines: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
  command = [sys.executable, str(CLUSTER), action, engine, f"--engines={engines}", f"--folder={folder}", *more]
  return subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)


@contextlib.contextmanager
def running(engine: str, folder: Path, *more: str) -> Iterator[Running]:
  """Starts a cluster, and stops it with all that it has started."""
  engines = engine_file(engine).parent
  started = cluster("start", engine, engines, folder, *more)
  assert started.returncode == 0, started.stderr
  try:
    yield Running(folder, shlex.split(started.stdout))
  finally:
    stopped = cluster("stop", engine, engines, folder)
    assert stopped.returncode == 0, stopped.stderr
    assert cluster("status", engine, engines, folder).stdout == f"{folder}: not running\n"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """Class folders `0` to `9`: scikit-learn's 1,797 digits, each of them in noise four times: 7,188 PNGs of 48 px, of
  some 6 KB; eight shards or so, and many times the bytes of their names and hashes."""
  from sklearn.datasets import load_digits

  digits = load_digits()
  rng = np.random.default_rng(5)
  folder = tmp_path_factory.mktemp("pictures")
  for label in range(10):
    (folder / str(label)).mkdir()
  for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
    large = np.kron(image, np.ones((6, 6)))[..., None] * 10  # 0..160
    for copy in range(COPIES):
      pixels = (large + rng.integers(0, 90, (48, 48, 3))).astype(np.uint8)
      Image.fromarray(pixels).save(folder / str(label) / f"{number}-{copy}.png", compress_level=1)
  return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
  """What FnApiRunner with one worker writes."""
  output = tmp_path_factory.mktemp("undisturbed") / "output"
  assert bottlenecks.run(embed_arguments(images, output, ONE_WORKER)) == ExitCode.DONE
  return output


def embed_arguments(images: Path, output: Path, flags: Sequence[str]) -> list[str]:
  # The batch as on a cluster, where none is tried out: another would be another request.
  return [f"--input={images}", f"--output={output}", "--trunk=bundled", "--batch_size=32", *flags]
