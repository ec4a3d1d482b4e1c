"""What `plan` measures with."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beam_retrain.pipelines.plan.measure import main, peak_memory, write_sample
from beam_retrain.pipelines.plan.request import PlanRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, Image
from beam_retrain.transforms.sources.folders import find_class_folders


def image(number: int) -> Image:
  return Image(f"digit/{number}.png", "digit", b"image %d" % number)


GONE = Quarantined("digit/9.png", 0, Reason.UNREADABLE, "No such file or directory")


def written(folder: Path) -> dict[str, list[bytes]]:
  return {
    split: [path.read_bytes() for path in sorted((folder / split).rglob("*")) if path.is_file()]
    for split in (TRAINING, TESTING)
  }


def test_each_split_of_the_sample_has_images_of_each_label(tmp_path):
  sample = {TRAINING: [image(0), GONE, image(1), image(2)], TESTING: [image(3)]}
  assert write_sample(sample, str(tmp_path)) == [3, 2]
  assert written(tmp_path) == {
    TRAINING: [b"image 0", b"image 1", b"image 2"],
    TESTING: [b"image 3", b"image 3"],
  }
  folders = find_class_folders(str(tmp_path))
  assert {(folder.split, folder.label) for folder in folders} == {
    (split, label) for split in (TRAINING, TESTING) for label in "ab"
  }


def test_a_split_without_readable_images_takes_others(tmp_path):
  assert write_sample({TRAINING: [image(0)], TESTING: [GONE]}, str(tmp_path)) == [2, 2]
  assert set(written(tmp_path)[TESTING]) == {b"image 0"}


def test_nothing_readable_is_told_with_the_first_cause(tmp_path):
  with pytest.raises(InputError, match=r"digit/9\.png: No such file or directory"):
    write_sample({TRAINING: [GONE], TESTING: []}, str(tmp_path))
  with pytest.raises(InputError, match=r"the input has no images: put some into"):
    write_sample({TRAINING: [], TESTING: []}, str(tmp_path))


def told(tmp_path: Path, images: Path, *flags: str) -> str:
  """Measures, in this process; returns the sentence that is handed over."""
  request = PlanRequest.parse([f"--input={images}", *flags])
  main(str(tmp_path / "result.json"), request.to_json(), "anyhow", str(time.time()))
  found = json.loads((tmp_path / "result.json").read_text())
  assert found.keys() == {"error"}
  return found["error"]


def test_what_the_user_has_to_mend_is_handed_over(tmp_path):
  for label in ("a", "b"):
    (tmp_path / "pictures" / label).mkdir(parents=True)
    (tmp_path / "pictures" / label / "gone.png").symlink_to(tmp_path / "nowhere.png")
  assert "gone.png: No such file or directory" in told(tmp_path, tmp_path / "pictures")


def test_what_a_step_of_the_job_says_is_handed_over_as_it_said_it(tmp_path, made, draw_digits):
  images = tmp_path / "pictures"
  draw_digits(images, 60, lambda number, label: f"many/{number}.png" if number else "one/0.png")
  assert told(tmp_path, images, f"--trunk={made.data.parent / 'trunk'}").endswith(
    "image of class 'one': add images, remove the class, or change --testing_percentage and --validation_percentage."
  )


def test_images_of_which_none_can_be_used_are_no_plan(tmp_path, made):
  for label in ("a", "b"):
    (tmp_path / "pictures" / label).mkdir(parents=True)
    for number in range(20):
      (tmp_path / "pictures" / label / f"{number}.png").write_bytes(b"no image" * (number % 2))
  sentence = told(tmp_path, tmp_path / "pictures", f"--trunk={made.data.parent / 'trunk'}")
  assert sentence.startswith(f"none of 40 sample images of {tmp_path / 'pictures'} ")
  assert "(20 EMPTY, 20 NOT_AN_IMAGE)" in sentence


def test_a_process_that_prepared_the_trunk_measures_no_more_than_the_job(tmp_path, made, monkeypatch):
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path / "cache"))
  request = PlanRequest.parse([f"--input={made.data}", f"--trunk={made.data.parent / 'trunk'}"])
  main(str(tmp_path / "result.json"), request.to_json(), "if-prepared", str(time.time()))
  found = json.loads((tmp_path / "result.json").read_text())
  assert found.pop("job_secs") > 0
  assert found == {"has_prepared": True, "measurement": None}


def test_peak_memory_is_of_processes_that_have_ended_too():
  subprocess.run([sys.executable, "-c", "b'x' * 700_000_000"], check=True)
  assert 700_000_000 < peak_memory() < 1 << 40
