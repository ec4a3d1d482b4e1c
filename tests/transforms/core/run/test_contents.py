"""`COMPLETED` lists what a finished folder holds, and readers notice what is not as listed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.run import contents
from beam_retrain.transforms.core.run.output_folder import (
  check_contents,
  claim_folder,
  complete_folder,
  find_earlier,
  is_completed,
  read_info,
  reopen_damaged,
  update_info,
)
from beam_retrain.transforms.core.run.run_info import describe_run
from beam_retrain.transforms.io import files

_INFO = describe_run("train", {"seed": 1}, [])


@pytest.fixture
def folder(tmp_path) -> str:
  """A finished folder, as `train` leaves it, with one shard of records."""
  folder = str(tmp_path / "output")
  claim_folder(folder, _INFO, owned=("model", "records"), work_folder="records/.shards", files=files)
  for name, data in {
    "labels.txt": b"cat\ndog\n",
    "model/weights.bin": bytes(5000),
    "records/all-00000-of-00001.tfrecord": b"records",
    "temp/graph": b"left out",
    ".fresh/x": b"left out",
    "model/a.tmp-0123": b"left out",
    "nested/info.json": b"{}",
    "nested/own.bin": b"left out",
  }.items():
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  report = ShardReport("all-00000-of-00001.tfrecord", "all", 1, 1, 7, hashlib.sha256(b"records").hexdigest(), "", {})
  Path(folder, "records/.shards/all-00000-of-00001.tfrecord.json").write_text(report.to_json())
  complete_folder(folder, files)
  return folder


def test_every_file_is_listed_with_its_size_and_digest(folder):
  entries = {entry.path: entry for entry in contents.read_list(folder, files)}
  report = "records/.shards/all-00000-of-00001.tfrecord.json"
  assert sorted(entries) == sorted(
    ["info.json", "labels.txt", "model/weights.bin", "records/all-00000-of-00001.tfrecord", report]
  )
  for path, entry in entries.items():
    data = Path(folder, path).read_bytes()
    assert (entry.size_bytes, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
  assert contents.read_stage(folder, files) == "train"


def test_files_that_shards_wrote_beside_their_own_are_listed_from_the_reports(tmp_path):
  (tmp_path / "training").mkdir()
  (tmp_path / "training" / "1.jpg").write_bytes(b"image")
  (tmp_path / "records" / ".shards").mkdir(parents=True)
  written = ["../training/1.jpg", 5, hashlib.sha256(b"image").hexdigest()]
  report = ShardReport("training-00000-of-00001.tfrecord", "training", 1, 1, 0, "", "", {}, (), {"files": [written]})
  (tmp_path / "records" / ".shards" / "x.json").write_text(report.to_json())
  complete_folder(str(tmp_path))
  assert next(contents.read_list(str(tmp_path), files)) == ("training/1.jpg", *written[1:])
  (tmp_path / "training" / "1.jpg").write_bytes(b"")
  assert not list(contents.find_faults(str(tmp_path), files))  # its readers see that it is empty
  faults = dict(contents.find_faults(str(tmp_path), files, with_data=True))
  assert faults == {"training/1.jpg": "has 0 bytes instead of 5"}


def _cut(path: Path) -> None:
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


_DAMAGES = {
  "emptied": lambda path: path.write_bytes(b""),
  "halved": _cut,
  "flipped": _flip,
  "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize(
  ("name", "damage"),
  [
    *((name, damage) for name in ("info.json", "labels.txt", "model/weights.bin") for damage in _DAMAGES),
    *(("COMPLETED", damage) for damage in ("emptied", "halved", "flipped")),
  ],
)
def test_a_reader_notices_each_damage_and_a_rerun_may_mend_it(folder, name, damage):
  check_contents(folder, _INFO, files)
  _DAMAGES[damage](Path(folder, name))
  with pytest.raises(InputError) as raised:
    read_info(folder, "train", files)
  assert f"{folder}/" in str(raised.value)
  assert f"repeat the `beam-retrain train`, or the `beam-retrain run`, that wrote {folder}." in str(raised.value)
  assert reopen_damaged(folder, files)
  assert not is_completed(folder) or name == "info.json"
  assert find_earlier(folder, "train", files) is not None
  claim_folder(folder, _INFO, owned=("model", "records"), work_folder="records/.shards", files=files)
  complete_folder(folder, files)
  assert read_info(folder, "train", files) == _INFO


def test_records_are_read_only_when_asked_as_their_readers_check_them(folder):
  _flip(Path(folder, "records/all-00000-of-00001.tfrecord"))
  assert not list(contents.find_faults(folder, files))
  assert dict(contents.find_faults(folder, files, with_data=True)) == {
    "records/all-00000-of-00001.tfrecord": "has changed since it was written"
  }


def test_what_is_sound_stays_when_a_damaged_folder_is_reopened(folder):
  assert reopen_damaged(folder, files) == ""
  assert is_completed(folder)
  Path(folder, "labels.txt").write_bytes(b"")
  assert reopen_damaged(folder, files) == "labels.txt has 0 bytes instead of 8"
  assert not Path(folder, "labels.txt").exists()
  assert Path(folder, "model/weights.bin").exists()


def test_a_new_info_is_listed(folder):
  update_info(folder, describe_run("train", {"seed": 2}, []), files)
  assert read_info(folder, "train", files).settings == {"seed": 2}


def test_a_folder_without_a_list_is_read_and_said_to_be_unchecked(folder, capsys):
  info = json.loads(Path(folder, "info.json").read_text())
  del info["lists_files"]
  Path(folder, "info.json").write_text(json.dumps(info))
  Path(folder, "COMPLETED").write_bytes(b"")
  assert read_info(folder, "train", files).stage == "train"
  assert f"{folder} was written by an earlier version" in capsys.readouterr().err
  assert reopen_damaged(folder, files) == ""


def test_the_list_appears_when_all_is_on_disk(tmp_path):
  calls = []

  class Recording:
    """The real files, whose calls are noted."""

    def __getattr__(self, name):
      def call(*arguments):
        calls.append((name, os.path.exists(tmp_path / "COMPLETED")))
        return getattr(files, name)(*arguments)

      return call

  (tmp_path / "a").write_bytes(b"a")
  contents.write_list(str(tmp_path), "train", Recording())
  syncs = [is_there for name, is_there in calls if name == "sync"]
  assert syncs == [False, True]
  assert [name for name, _ in calls].index("sync") < [name for name, _ in calls].index("write_atomically")


def test_info_is_on_disk_before_any_work(tmp_path):
  synced = []

  class Recording:
    """The real files, whose state at each `sync` is noted."""

    def __getattr__(self, name):
      if name == "sync":
        synced.append(sorted(os.listdir(tmp_path)))
      return getattr(files, name)

  claim_folder(str(tmp_path), _INFO, owned=(), work_folder="records/.shards", files=Recording())
  assert synced == [["info.json", "records"]]


@pytest.mark.parametrize("path", ["../victim", "model/../../victim"])
def test_a_list_from_elsewhere_names_nothing_outside_its_folder(path, folder):
  victim = Path(folder).parent / "victim"
  victim.write_text("of another")
  lines = [{"stage": "train", "version": 1}, [path, 1, "0" * 64]]
  text = "".join(f"{json.dumps(line)}\n" for line in lines)
  Path(folder, "COMPLETED").write_text(f'{text}"{hashlib.sha256(text.encode()).hexdigest()}"\n')
  assert reopen_damaged(folder, files) == "COMPLETED has changed since it was written"
  assert victim.exists()


def test_a_folder_whose_first_command_was_killed_can_be_claimed(tmp_path):
  (tmp_path / "info.json.tmp-0123").write_bytes(b"{")
  claim_folder(str(tmp_path), _INFO, owned=(), work_folder="records/.shards", files=files)
  assert not (tmp_path / "info.json.tmp-0123").exists()
  assert (tmp_path / "records/.shards").is_dir()
