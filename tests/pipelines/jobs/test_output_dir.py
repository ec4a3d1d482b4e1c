"""Whose an output folder is, and what may be cleared in it."""

from __future__ import annotations

import json
import os

import pytest

from beam_retrain.pipelines.jobs.runner import claim_output
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.run_info import describe_run, request_digest
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo


def _claim(folder, **changes) -> str:
  given = {"stage": "convert", "settings": {"formats": ["jpg"]}, "argv": ["--input", "a b"], **changes}
  info = describe_run(**given)
  claim_output(str(folder), info, owned=["records", "*.rec"])
  return info.request


def _fill(folder) -> None:
  """What a run writes, and what it never would."""
  for name in (
    "COMPLETED",
    "stats.json",
    "labels.txt",
    "quarantine.csv",
    "training.rec",
    "records/a",
    ".shards/a.json",
  ):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("old")
  (folder / "notes.txt").write_text("the user's own")
  (folder / "mine").mkdir()
  (folder / "mine" / "training.rec").write_text("the user's own")


def test_a_new_folder_is_made_with_its_parents(tmp_path):
  request = _claim(tmp_path / "new" / "output", trunk=TrunkInfo("bundled", "f" * 64, 75, 512, "f" * 64))
  info = json.loads((tmp_path / "new" / "output" / "info.json").read_text())
  assert info["stage"] == "convert"
  assert info["request"] == request
  assert info["settings"] == {"formats": ["jpg"]}
  assert info["command"] == "beam-retrain convert --input 'a b'"
  assert info["trunk"]["handle"] == "bundled"
  assert {"python", "numpy", "apache-beam"} <= info["versions"].keys()
  assert os.path.isdir(tmp_path / "new" / "output" / ".shards")


def test_an_empty_folder_is_taken(tmp_path):
  _claim(tmp_path)
  assert (tmp_path / "info.json").exists()


@pytest.mark.parametrize("name", ["notes.txt", "class/1.jpg", "training/5/1.jpg", ".hidden"])
def test_a_folder_with_anything_in_it_that_we_did_not_write_is_refused_untouched(tmp_path, name):
  (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
  (tmp_path / name).write_text("the user's own")
  with pytest.raises(InputError, match="is not empty and was not written by beam-retrain"):
    _claim(tmp_path)
  assert [os.path.join(where, file) for where, _, files in os.walk(tmp_path) for file in files] == [
    str(tmp_path / name)
  ]


def test_another_stage_s_folder_is_refused_untouched(tmp_path):
  _claim(tmp_path, stage="train")
  _fill(tmp_path)
  before = (tmp_path / "info.json").read_bytes()
  with pytest.raises(InputError, match="holds the output of `beam-retrain train`: give another --output"):
    _claim(tmp_path)
  assert (tmp_path / "info.json").read_bytes() == before
  assert (tmp_path / "records" / "a").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "somebody else"}'])
def test_somebody_else_s_info_is_refused_untouched(tmp_path, text):
  (tmp_path / "info.json").write_text(text)
  with pytest.raises(InputError, match="was not written by beam-retrain"):
    _claim(tmp_path)
  assert (tmp_path / "info.json").read_text() == text


def test_the_same_request_goes_on_where_it_was_killed(tmp_path):
  request = _claim(tmp_path)
  _fill(tmp_path)
  (tmp_path / "COMPLETED").unlink()
  assert _claim(tmp_path, argv=["--input", "a b", "--runner=FlinkRunner"]) == request
  for kept in ("training.rec", "records/a", ".shards/a.json"):
    assert (tmp_path / kept).exists(), kept


@pytest.mark.parametrize("changed", [False, True], ids=["finished", "changed"])
def test_a_finished_or_a_changed_request_starts_empty_and_clears_only_what_is_owned(tmp_path, changed):
  first = _claim(tmp_path)
  _fill(tmp_path)
  if changed:
    (tmp_path / "COMPLETED").unlink()
  second = _claim(tmp_path, settings={"formats": ["png"]} if changed else {"formats": ["jpg"]})
  assert (first != second) == changed
  left = {
    os.path.relpath(os.path.join(where, file), tmp_path) for where, _, files in os.walk(tmp_path) for file in files
  }
  assert left == {"config.toml", "info.json", "labels.txt", "notes.txt", "mine/training.rec"}
  assert os.path.isdir(tmp_path / ".shards")


def test_a_folder_whose_name_is_a_pattern_is_cleared_and_its_neighbour_is_not(tmp_path):
  output, neighbour = tmp_path / "[a]", tmp_path / "a"
  for folder in (output, neighbour):
    _claim(folder)
    _fill(folder)
  _claim(output)
  assert not (output / "training.rec").exists()
  assert (neighbour / "training.rec").exists()


def test_the_request_depends_on_settings_not_on_their_order():
  digest = request_digest
  assert digest("convert", {"a": 1, "b": 2}) == digest("convert", {"b": 2, "a": 1})
  assert len({digest("convert", {"a": 1}), digest("convert", {"a": 2}), digest("train", {"a": 1})}) == 3
