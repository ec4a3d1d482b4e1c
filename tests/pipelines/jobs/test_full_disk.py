"""A full disk is named: the one that is full, with the room that is left, by every command."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.pipelines.cli import main
from tests.conftest import DigitsRun
from tests.helpers import ROOT, file_contents, write

_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
  folder = tmp_path / "small disk"
  folder.mkdir()
  mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, text=True)
  if mounted.returncode:
    pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
  yield folder
  subprocess.run(["umount", "-l", folder], check=True)


def sentence_of(shown: str) -> str:
  assert "Traceback" not in shown
  found = [line for line in shown.splitlines() if line.startswith("beam-retrain")]
  assert len(found) == 1, shown
  return found[0]


@pytest.fixture
def idx(tmp_path: Path) -> Path:
  pixels = np.random.default_rng(4).integers(0, 256, (200, 28, 28), dtype=np.uint8)
  files = {}
  for name in ("train", "t10k"):
    files[f"{name}-images-idx3-ubyte"] = struct.pack(">IIII", 0x803, *pixels.shape) + pixels.tobytes()
    files[f"{name}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, len(pixels)) + bytes(n % 10 for n in range(200))
  return write(tmp_path / "idx", files)


@pytest.mark.parametrize("more", [(), _PROCESSES, ("--formats=jpg",)], ids=["here", "in workers", "images alone"])
def test_convert(more, idx, small_disk, capfd):
  assert main(["convert", f"--input={idx}", f"--output={small_disk / 'out'}", *more]) == 2
  said = sentence_of(capfd.readouterr().err)
  assert f"{small_disk}/out/" in said
  assert f"the disk of {small_disk} is full (0.0 MB left): free some space there, or write elsewhere." in said


@pytest.mark.parametrize("command", ["bottlenecks", "train", "evaluate"])
def test_other_outputs(command, made: DigitsRun, small_disk, capfd):
  given = {
    "bottlenecks": [f"--input={made.data}", f"--trunk={made.data.parent / 'trunk'}"],
    "train": [f"--input={made.bottlenecks}", "--rounds=1"],
    "evaluate": [f"--input={made.bottlenecks}", f"--model={made.model}"],
  }
  assert main([command, f"--output={small_disk / 'out'}", *given[command]]) == 2
  assert f"{small_disk}/out" in (said := sentence_of(capfd.readouterr().err))
  assert f"the disk of {small_disk} is full" in said
  assert not (small_disk / "out" / "COMPLETED").exists()


def test_the_cache_s_disk_is_not_needed(made: DigitsRun, small_disk, tmp_path, monkeypatch, capfd):
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(small_disk / "cache"))
  write(small_disk, {"other": bytes(60_000)})
  trunk = f"--trunk={made.data.parent / 'trunk'}"
  split = "--testing_percentage=30"
  assert main(["bottlenecks", f"--input={made.data}", f"--output={tmp_path / 'out'}", trunk, split]) == 0
  assert (
    f"the cache folder {small_disk / 'cache'} cannot be written (No space left on device)" in capfd.readouterr().err
  )
  records = "records/testing-00000-of-00001.tfrecord"
  assert file_contents(tmp_path / "out")[records] == file_contents(made.bottlenecks)[records]


def test_a_full_folder_for_temporary_files(made: DigitsRun, small_disk, tmp_path, monkeypatch, capfd):
  write(small_disk, {"other": bytes(60_000)})
  monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
  arguments = [f"--input={made.bottlenecks}", f"--model={made.model}", f"--output={tmp_path / 'out'}"]
  code = main(["evaluate", *arguments])
  shown = capfd.readouterr().err
  assert code == 0 or f"the disk of {small_disk} is full" in sentence_of(shown)


def test_predictions_that_the_shell_writes_there(made: DigitsRun, small_disk):
  (small_disk / "other").write_bytes(bytes(61_000))
  command = [sys.executable, "-m", "beam_retrain.pipelines.cli", "predict", f"--model={made.model}", str(made.data)]
  with (small_disk / "predictions.csv").open("w") as file:
    done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.PIPE, text=True, env=os.environ)
  assert done.returncode == 2
  assert f"predictions.csv cannot be written: the disk of {small_disk} is full" in sentence_of(done.stderr)
