"""Output folders are read as the stages finished them, or refused with the remedy."""

from __future__ import annotations

import json
import os

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.output_folder import claim_folder, read_info, read_labels
from beam_retrain.transforms.core.run.run_info import RunInfo


def _write(folder, stage: str = "convert", completed: bool = True) -> str:
  (folder / "info.json").write_text(json.dumps({"stage": stage, "request": "ab"}))
  if completed:
    (folder / "COMPLETED").touch()
  return str(folder)


def test_a_finished_folder_is_read(tmp_path):
  assert read_info(_write(tmp_path), "convert") == RunInfo("convert", "ab")


@pytest.mark.parametrize(("name", "problem"), [("", r"has no info\.json"), ("not there", "does not exist")])
def test_a_folder_without_info_is_refused(tmp_path, name, problem):
  folder = os.path.join(tmp_path, name)
  with pytest.raises(InputError, match=f"{problem}: give the folder that `beam-retrain convert` wrote") as raised:
    read_info(folder, "convert")
  assert folder in str(raised.value)


def test_a_folder_that_this_user_may_not_enter_is_told(tmp_path):
  folder = _write(tmp_path)
  tmp_path.chmod(0)
  root = os.geteuid() == 0
  try:
    if root:
      os.seteuid(65534)  # root may enter every folder
    with pytest.raises(
      InputError, match=f"^{folder} cannot be entered \\(Permission denied\\): give this user the right"
    ):
      read_info(folder, "convert")
  finally:
    if root:
      os.seteuid(0)
    tmp_path.chmod(0o700)


def test_a_folder_of_another_stage_is_refused(tmp_path):
  with pytest.raises(InputError, match="written by `beam-retrain train`"):
    read_info(_write(tmp_path, "train"), "convert")


def test_an_unfinished_folder_is_refused_with_the_remedy(tmp_path):
  with pytest.raises(InputError, match="not finished: repeat the `beam-retrain convert`"):
    read_info(_write(tmp_path, completed=False), "convert")


def test_labels_are_in_the_order_of_their_class_indices(tmp_path):
  (tmp_path / "labels.txt").write_bytes("zwei\nÄpfel und Birnen\n 3\n".encode())
  assert read_labels(str(tmp_path)) == ["zwei", "Äpfel und Birnen", "3"]


def test_a_folder_whose_info_a_power_cut_emptied_can_be_claimed_again(tmp_path):
  info = RunInfo("convert", "ab")
  (tmp_path / "cut" / ".shards").mkdir(parents=True)
  (tmp_path / "cut" / "info.json").touch()
  (tmp_path / "cut" / ".lock").write_text("{}")  # of the command itself
  assert not claim_folder(str(tmp_path / "cut"), info, owned=(), work_folder=".shards")
  assert (tmp_path / "cut" / "info.json").read_text() == info.to_json()
  (tmp_path / "cut" / "info.json").write_bytes(b"")
  (tmp_path / "cut" / "notes.txt").touch()  # another's
  with pytest.raises(InputError, match="not written by beam-retrain"):
    claim_folder(str(tmp_path / "cut"), info, owned=(), work_folder=".shards")
