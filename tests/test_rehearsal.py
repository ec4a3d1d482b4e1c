"""What `plan` measures with."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.rehearsal import main, peak_memory, write_sample
from transforms.core.errors import InputError
from transforms.core.quarantine import Quarantined, Reason
from transforms.core.schema import TESTING, TRAINING, Image
from transforms.folders import find_class_folders


def image(number: int) -> Image:
  return Image(f"digit/{number}.png", "digit", b"picture %d" % number)


GONE = Quarantined("digit/9.png", 0, Reason.UNREADABLE, "No such file or directory")


def written(folder: Path) -> dict[str, list[bytes]]:
  return {
    split: [path.read_bytes() for path in sorted((folder / split).rglob("*")) if path.is_file()]
    for split in (TRAINING, TESTING)
  }


def test_each_split_of_the_sample_has_pictures_of_each_label(tmp_path):
  sample = {TRAINING: [image(0), GONE, image(1), image(2)], TESTING: [image(3)]}
  assert write_sample(sample, str(tmp_path)) == [3, 2]
  assert written(tmp_path) == {
    TRAINING: [b"picture 0", b"picture 1", b"picture 2"],
    TESTING: [b"picture 3", b"picture 3"],
  }
  folders = find_class_folders(str(tmp_path))
  assert {(folder.split, folder.label) for folder in folders} == {
    (split, label) for split in (TRAINING, TESTING) for label in "ab"
  }


def test_a_split_without_readable_pictures_takes_others(tmp_path):
  assert write_sample({TRAINING: [image(0)], TESTING: [GONE]}, str(tmp_path)) == [2, 2]
  assert set(written(tmp_path)[TESTING]) == {b"picture 0"}


def test_nothing_readable_is_told_with_the_first_cause(tmp_path):
  with pytest.raises(InputError, match=r"digit/9\.png: No such file or directory"):
    write_sample({TRAINING: [GONE], TESTING: []}, str(tmp_path))


def test_what_the_user_has_to_mend_is_handed_over(tmp_path):
  for label in ("a", "b"):
    (tmp_path / "pictures" / label).mkdir(parents=True)
    (tmp_path / "pictures" / label / "gone.png").symlink_to(tmp_path / "nowhere.png")
  main([str(tmp_path / "result.json"), "anyhow", str(time.time()), f"--input={tmp_path / 'pictures'}"])
  found = json.loads((tmp_path / "result.json").read_text())
  assert found.keys() == {"error"}
  assert "gone.png: No such file or directory" in found["error"]


def test_peak_memory_is_of_processes_that_have_ended_too():
  subprocess.run([sys.executable, "-c", "b'x' * 700_000_000"], check=True)
  assert 700_000_000 < peak_memory() < 1 << 40
