"""Distorted variants beside the records: of training images only, the same however the job is run, and trained on."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from beam_retrain.pipelines.bottlenecks import run
from beam_retrain.pipelines.verify import run as verify
from beam_retrain.trainer import task
from beam_retrain.trainer.fit.data import load_bottlenecks
from beam_retrain.trainer.fit.objective import blocks_of
from beam_retrain.trainer.fit.training import stream_batches
from beam_retrain.trainer.request import TrainRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.augment import Distortions, key_of_original
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER, decode_bottleneck
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records

PIXELS = 16
COPIES = 3
FLAGS = ("--flip_left_right", "--random_crop=20", "--random_scale=30", "--random_brightness=40")
DISTORTIONS = Distortions(True, 20, 30, 40, COPIES)
PERCENTAGES = SplitPercentages(testing=20, validation=20)
SPLITS = ("--testing_percentage=20", "--validation_percentage=20")
LABELS = ("ant", "bee")


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
  """A trunk whose bottleneck is the image itself, a quarter of its pixels."""
  import tensorflow as tf

  from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk

  folder = tmp_path_factory.mktemp("trunk") / "trunk"
  save_trunk(freeze(lambda images: tf.reshape(images[:, ::2, ::2, 0], [-1, 64]), PIXELS), str(folder))
  return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pictures") / "pictures"
  for number in range(120):
    path = folder / LABELS[number % 2] / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (20, 30), dtype=np.uint8)
    Pillow.fromarray(pixels).save(path)
  return folder


def arguments(pictures: Path, trunk: Path, output: Path, *more: str) -> list[str]:
  always = (f"--distortion_copies={COPIES}", *SPLITS)
  return [f"--input={pictures}", f"--trunk={trunk}", f"--output={output}", *FLAGS, *always, *more]


@pytest.fixture(scope="module")
def made(tmp_path_factory, pictures, trunk):
  output = tmp_path_factory.mktemp("made") / "output"
  assert run(arguments(pictures, trunk, output)) == 0
  return output


def variants(output: Path) -> Iterator:
  for path in sorted((output / "distorted").glob("*.tfrecord")):
    with path.open("rb") as file:
      yield from map(decode_bottleneck, read_records(file, str(path)))


def distorted_bytes(output: Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in (output / "distorted").glob("*.tfrecord")}


def stats_of(output: Path) -> dict:
  return json.loads((output / "stats.json").read_text())


def keys(pictures: Path, split: str) -> set[str]:
  found = (path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
  return {key for key in found if PERCENTAGES.split_of(key) == split}


def test_each_training_image_and_no_other_has_its_variants(made, pictures):
  found = Counter(key_of_original(variant.key) for variant in variants(made))
  assert keys(pictures, "validation")
  assert keys(pictures, "testing")
  assert found == dict.fromkeys(keys(pictures, "training"), COPIES)
  training = len(keys(pictures, "training"))
  assert stats_of(made)["distorted"] == {
    "copies": COPIES,
    "pictures": training,
    "records": training * COPIES,
    "left_out": 0,
  }


def test_a_variant_is_what_numpy_makes_of_the_image(made, pictures):
  for variant in variants(made):
    key, copy = variant.key.split("#")
    drawn = DISTORTIONS.variants(key, PIXELS)[int(copy) - 1]
    encoded = (pictures / key).read_bytes()
    assert variant.sha256 == hashlib.sha256(encoded).hexdigest()
    assert (variant.label, variant.class_index) == (key.split("/")[0], LABELS.index(key.split("/")[0]))
    with Pillow.open(pictures / key) as image:
      grey = np.asarray(image, np.float64) / 255
    enlarged = resized(grey, drawn.side_px)
    cut = enlarged[drawn.top_px : drawn.top_px + PIXELS, drawn.left_px : drawn.left_px + PIXELS]
    expected = (cut[:, ::-1] if drawn.is_mirrored else cut) * drawn.brightness
    np.testing.assert_allclose(variant.vector.reshape(8, 8), expected[::2, ::2], atol=2e-5)


def resized(grey: np.ndarray, side: int) -> np.ndarray:
  """Bilinear, pixel centres aligned, no antialiasing: an axis at a time."""
  for axis in (0, 1):
    length = grey.shape[axis]
    at = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1)
    low = np.floor(at).astype(int)
    part = np.expand_dims(at - low, 1 - axis)
    high = np.minimum(low + 1, length - 1)
    grey = np.take(grey, low, axis) * (1 - part) + np.take(grey, high, axis) * part
  return grey


def test_the_records_are_those_of_a_run_without_distortions(made, pictures, trunk, tmp_path):
  plain = tmp_path / "plain"
  rest = [flag for flag in arguments(pictures, trunk, plain) if flag not in FLAGS and "copies" not in flag]
  assert run(rest) == 0
  for path in (plain / "records").glob("*.tfrecord"):
    assert path.read_bytes() == (made / "records" / path.name).read_bytes()
  assert not (plain / "distorted").exists()
  assert stats_of(plain) == {name: value for name, value in stats_of(made).items() if name != "distorted"}


def test_two_processes_write_the_same_bytes(made, pictures, trunk, tmp_path):
  two = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
  assert run(arguments(pictures, trunk, tmp_path / "two", *two)) == 0
  assert distorted_bytes(tmp_path / "two") == distorted_bytes(made)
  for path in (made / "records").glob("*.tfrecord"):
    assert (tmp_path / "two" / "records" / path.name).read_bytes() == path.read_bytes()
  for name in ("stats.json", "labels.txt", "quarantine.csv"):
    assert (tmp_path / "two" / name).read_bytes() == (made / name).read_bytes()
  assert verify(["--same", str(made), str(tmp_path / "two")]) == 0


def test_another_seed_is_another_output_and_verify_tells(made, pictures, trunk, tmp_path, capsys):
  assert run(arguments(pictures, trunk, tmp_path / "seed", "--distortion_seed=1")) == 0
  assert distorted_bytes(tmp_path / "seed") != distorted_bytes(made)
  assert verify(["--same", str(made), str(tmp_path / "seed")]) == 1
  assert "distorted/training-00000-of-00001.tfrecord: record 0 (" in capsys.readouterr().err


def test_a_killed_run_goes_on_to_the_same_bytes(made, pictures, trunk, tmp_path):
  output = tmp_path / "killed"
  command = [sys.executable, "-m", "beam_retrain.pipelines.bottlenecks", *arguments(pictures, trunk, output)]
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
  deadline = time.monotonic() + 120
  while not list((output / "records" / REPORTS_FOLDER).glob("*.json")) and time.monotonic() < deadline:
    time.sleep(0.01)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  assert not (output / "COMPLETED").exists()
  stray = output / "distorted" / "training-00000-of-00009.tfrecord"
  stray.parent.mkdir(exist_ok=True)
  stray.write_bytes(b"of an earlier plan")
  assert run(arguments(pictures, trunk, output)) == 0
  assert distorted_bytes(output) == distorted_bytes(made)


def test_bad_images_count_once_and_have_no_variants(pictures, trunk, tmp_path):
  damaged = shutil.copytree(pictures, tmp_path / "damaged")
  bad = sorted(keys(pictures, "training"))[:3]
  (damaged / bad[0]).write_bytes(b"")
  (damaged / bad[1]).write_bytes(b"no image")
  encoded = (damaged / bad[2]).read_bytes()
  (damaged / bad[2]).write_bytes(encoded[: len(encoded) // 2])
  assert run(arguments(damaged, trunk, tmp_path / "output", "--max_bad_fraction=0.1")) == 0
  stats = stats_of(tmp_path / "output")
  assert stats["quarantined"] == 3
  training = len(keys(pictures, "training"))
  assert stats["distorted"] == {
    "copies": COPIES,
    "pictures": training - 3,
    "records": (training - 3) * COPIES,
    "left_out": 0,
  }
  assert not {key_of_original(variant.key) for variant in variants(tmp_path / "output")} & set(bad)
  assert len((tmp_path / "output" / "quarantine.csv").read_text().splitlines()) == 4


def test_shards_of_an_earlier_run_are_copied_where_they_are_the_same(made, pictures, trunk, tmp_path):
  """The earlier file is changed, soundly: only who copies it has the change."""
  earlier = shutil.copytree(made, tmp_path / "earlier")
  report_path = next((earlier / "distorted" / REPORTS_FOLDER).glob("*.json"))
  path = earlier / "distorted" / report_path.stem
  marked = path.read_bytes() * 2
  path.write_bytes(marked)
  report = json.loads(report_path.read_text())
  report_path.write_text(json.dumps({**report, "sha256": hashlib.sha256(marked).hexdigest()}))
  assert run(arguments(pictures, trunk, tmp_path / "new", f"--reuse={earlier}")) == 0
  assert (tmp_path / "new" / "distorted" / path.name).read_bytes() == marked
  # Of other distortions, or with a file that is not what its report says, it is made anew.
  assert run(arguments(pictures, trunk, tmp_path / "other", "--distortion_seed=1", f"--reuse={earlier}")) == 0
  assert (tmp_path / "other" / "distorted" / path.name).read_bytes() != marked
  path.write_bytes(marked[:-1])
  assert run(arguments(pictures, trunk, tmp_path / "sound", f"--reuse={earlier}")) == 0
  assert distorted_bytes(tmp_path / "sound") == distorted_bytes(made)


def load(folder: Path, percentages: SplitPercentages = PERCENTAGES):
  return load_bottlenecks(
    str(folder), labels=LABELS, dimensions=64, percentages=percentages, transform=lambda vectors: vectors * 2
  )


def test_the_trainer_draws_from_images_and_variants(made, pictures):
  data = load(made)
  assert len(data.rows["training"]) == len(keys(pictures, "training"))
  drawn = data.vectors[data.learned_rows]
  assert len(drawn) == len(keys(pictures, "training")) * (1 + COPIES)
  expected = {variant.vector.tobytes() for variant in variants(made)}
  assert {(vector / 2).astype(np.float32).tobytes() for vector in drawn} > expected


def test_both_presets_learn_from_images_and_variants(made):
  data = load(made)
  schedule = TrainRequest(input=str(made), output="none", preset="retrain").make_schedule()
  batches = itertools.islice(stream_batches(data, schedule, seed=0, first_block=0), 100)
  expected = {vector.tobytes() for vector in data.vectors[data.learned_rows]}
  assert {vector.tobytes() for vectors, _ in batches for vector in vectors} == expected
  assert {vector.tobytes() for block in blocks_of(data) for vector in block.read()[block.is_learned]} == expected


def test_variants_of_what_is_for_validation_today_are_not_learned(made, pictures):
  more = SplitPercentages(testing=20, validation=50)
  data = load(made, more)
  still = {key for key in keys(pictures, "training") if more.split_of(key) == "training"}
  assert 0 < len(still) < len(keys(pictures, "training"))
  assert len(data.learned_rows) == len(still) * (1 + COPIES)


def test_the_checksum_of_the_data_has_the_variants_in_it(made, tmp_path):
  without = shutil.copytree(made, tmp_path / "without")
  shutil.rmtree(without / "distorted")
  stats = stats_of(without)
  del stats["distorted"]
  (without / "stats.json").write_text(json.dumps(stats))
  assert load(without).sha256 != load(made).sha256
  assert len(load(without).learned_rows) == len(load(without).rows["training"])


def test_missing_variants_are_told(made, tmp_path):
  broken = shutil.copytree(made, tmp_path / "broken")
  shutil.rmtree(broken / "distorted")
  with pytest.raises(InputError, match=r"holds 0 distorted records, but its stats\.json says"):
    load(broken)


def test_train_says_how_many_variants_it_learns_from(made, pictures, tmp_path, capsys):
  assert task.run([f"--input={made}", f"--output={tmp_path / 'model'}", "--rounds=2"]) == 0
  count = len(keys(pictures, "training")) * COPIES
  assert f"and {count:,} distorted variants of the training images" in capsys.readouterr().out
  metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
  assert metrics["training_images"] == len(keys(pictures, "training"))


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--random_crop=-1"], "--random_crop -1 would make the image smaller"),
    (["--random_scale=-5"], "--random_scale -5 would make the image smaller"),
    (["--random_brightness=101"], "--random_brightness 101 is not in 0..100"),
    (["--random_crop=400", "--random_scale=400"], "times as wide as the trunk's input"),
    (["--flip_left_right", "--distortion_copies=101"], "--distortion_copies 101 is not in 1..100"),
    (["--distortion_copies=4"], "--distortion_copies needs a distortion"),
    (["--distortion_seed=4"], "--distortion_seed needs a distortion"),
  ],
)
def test_values_that_make_no_sense_are_told_before_any_work(flags, words, pictures, tmp_path):
  with pytest.raises(InputError, match=words):
    run([f"--input={pictures}", "--trunk=/nowhere", f"--output={tmp_path / 'output'}", *flags])
  assert not (tmp_path / "output").exists()
