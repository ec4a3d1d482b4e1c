"""What `plan` measures with."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from beam_retrain.pipelines.plan import measure as plan_measure
from beam_retrain.pipelines.plan.measure import Measurement, measure, write_sample
from beam_retrain.pipelines.plan.request import PlanRequest
from beam_retrain.pipelines.plan.timing import plan_images
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.sources.find import find_source
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


def measured(images: Path, *flags: str) -> Measurement:
  request = PlanRequest.parse([f"--input={images}", *flags])
  return measure(request, request.find_input())


def test_what_the_user_has_to_mend_is_said(tmp_path):
  for label in ("a", "b"):
    (tmp_path / "pictures" / label).mkdir(parents=True)
    (tmp_path / "pictures" / label / "gone.png").symlink_to(tmp_path / "nowhere.png")
  with pytest.raises(InputError, match=r"gone\.png: No such file or directory"):
    measured(tmp_path / "pictures")


def test_what_a_step_of_the_job_says_is_handed_over_as_it_said_it(tmp_path, draw_digits):
  draw_digits(tmp_path, 60, lambda number, label: f"many/{number}.png" if number else "one/0.png")
  source = find_source(str(tmp_path))
  with pytest.raises(InputError) as error:
    plan_images(source, SplitPercentages())
  assert str(error.value).endswith(
    "image of class 'one': add images, of which 50 in a class are enough as a rule, or remove the class."
  )


def test_images_of_which_none_can_be_used_are_no_plan(tmp_path, made):
  for label in ("a", "b"):
    (tmp_path / "pictures" / label).mkdir(parents=True)
    for number in range(20):
      (tmp_path / "pictures" / label / f"{number}.png").write_bytes(b"no image" * (number % 2))
  with pytest.raises(InputError) as error:
    measured(tmp_path / "pictures", f"--trunk={made.data.parent / 'trunk'}")
  assert str(error.value).startswith(f"none of 40 sample images of {tmp_path / 'pictures'} ")
  assert "(20 EMPTY, 20 NOT_AN_IMAGE)" in str(error.value)


@pytest.mark.parametrize(("cache", "counts"), [("there", (2, 1)), (os.devnull, (1,))])
def test_a_job_that_prepares_the_trunk_is_run_again_if_the_next_finds_it(tmp_path, made, monkeypatch, cache, counts):
  jobs = []

  def run_child(*job: Any) -> tuple[int, list[str]]:
    jobs.append(job)
    if cache == "there":  # what another process writes meanwhile does not count
      (tmp_path / cache).mkdir(exist_ok=True)
      (tmp_path / cache / str(len(jobs))).touch()
    return run_really(*job)

  run_really = plan_measure._run_child
  monkeypatch.setattr(plan_measure, "_run_child", run_child)
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path / cache))
  digits = [Image(path.name, "digit", path.read_bytes()) for path in made.data.glob("*/?.png")]
  assert write_sample({TRAINING: digits, TESTING: digits}, str(tmp_path / "pictures")) == [10, 10]
  request = PlanRequest.parse([f"--input={made.data}", f"--trunk={made.data.parent / 'trunk'}"])
  job = request.of_sample(str(tmp_path / "pictures"), str(tmp_path / "output"), "")
  for count in counts:
    jobs.clear()
    _, _, first_secs = plan_measure._run_job(job, str(tmp_path))
    assert len(jobs) == count
    assert first_secs >= 0 if count == 2 else first_secs == 0
    shutil.rmtree(tmp_path / "output")


def test_a_job_that_dies_is_told_with_its_last_line(tmp_path, made, monkeypatch):
  monkeypatch.setattr(plan_measure, "_CHILD", "raise SystemExit('no more')")
  with pytest.raises(RuntimeError, match="ended with exit code 1: no more"):
    measured(made.data)
