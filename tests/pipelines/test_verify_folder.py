"""`verify --folder`: every file of the finished outputs below a folder is as it was written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from tests.helpers import forget_list


@pytest.fixture
def work(bottlenecks_folder, trained_model, tmp_path) -> Path:
  shutil.copytree(bottlenecks_folder, tmp_path / "bottlenecks")
  shutil.copytree(trained_model, tmp_path / "deeper" / "model")
  return tmp_path


def _verify(folder: Path, capsys) -> tuple[int, str, str]:
  capsys.readouterr()
  code = main(["verify", f"--folder={folder}"])
  return code, *capsys.readouterr()


def test_whole_outputs_are_counted_and_other_files_are_not_theirs(work, capsys):
  (work / "bottlenecks" / "notes.txt").write_text("mine")
  code, shown, _ = _verify(work, capsys)
  listed = sum(
    len((work / name / "COMPLETED").read_text().splitlines()) - 2 for name in ("bottlenecks", "deeper/model")
  )
  assert (code, shown) == (ExitCode.DONE, f"{listed:,} files of 2 outputs are as they were written\n")


def test_each_damaged_file_is_named(work, capsys):
  (record,) = (work / "bottlenecks" / "records").glob("testing-*.tfrecord")
  data = bytearray(record.read_bytes())
  data[-20] ^= 1  # no reader of sizes alone sees that
  record.write_bytes(data)
  (work / "deeper" / "model" / "head.npz").write_bytes(b"")
  code, shown, said = _verify(work, capsys)
  assert (code, shown) == (ExitCode.GATE_MISSED, "")
  assert f"bottlenecks/records/{record.name} has changed since it was written\n" in said
  assert "deeper/model/head.npz has 0 bytes instead of " in said


def test_outputs_of_0_4_are_said_to_be_unchecked(work, capsys):
  forget_list(work / "bottlenecks")
  code, shown, said = _verify(work / "bottlenecks", capsys)
  assert (code, shown) == (ExitCode.FAILED, "")
  assert "bottlenecks has no list of its files, as before version 0.5: not checked" in said


def test_nothing_to_check_is_one_sentence(tmp_path, capsys):
  code, _, said = _verify(tmp_path, capsys)
  assert code == ExitCode.FAILED
  remedy = "give a folder that one of its commands wrote"
  assert said == f"beam-retrain: {tmp_path} contains no finished output of beam-retrain: {remedy}.\n"
