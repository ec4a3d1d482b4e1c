"""TensorFlow Lite files as `train` writes them, read as an app reads them: with the interpreter alone."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from beam_retrain.trainer import task
from beam_retrain.trainer.export import tflite
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.decode import preprocess
from beam_retrain.transforms.core.models.head import Head
from beam_retrain.transforms.core.records.schema import TRAINING, decode_bottleneck
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from tests.helpers import ROOT

BOUND = 1e-4


class Trained(NamedTuple):
  folder: Path
  said: str

  @property
  def metrics(self) -> dict:
    return json.loads((self.folder / "metrics.json").read_text())["tflite"]


def train(bottlenecks: Path, folder: Path, *more: str) -> int:
  files = [f"--tflite_output_file={folder}/lite/model.tflite", f"--tflite_int8_output_file={folder}/int8.tflite"]
  return task.run([f"--input={bottlenecks}", f"--output={folder}", "--rounds=20", *files, *more])


@pytest.fixture(scope="module")
def trained(inception_bottlenecks, tmp_path_factory) -> Trained:
  """A real Inception v3 inside, with weights that nobody trained."""
  return Trained(*train_and_listen(inception_bottlenecks, tmp_path_factory.mktemp("lite") / "model"))


@pytest.fixture(scope="module")
def digits(made, tmp_path_factory) -> Trained:
  """Real digits, told apart well, by a trunk that is only their grey values."""
  return Trained(*train_and_listen(made.bottlenecks, tmp_path_factory.mktemp("lite") / "digits"))


def train_and_listen(bottlenecks: Path, folder: Path) -> tuple[Path, str]:
  with contextlib.redirect_stdout(io.StringIO()) as said:
    assert train(bottlenecks, folder, "--tflite_calibration_images=40") == 0
  return folder, said.getvalue()


def interpret(path: Path, images: np.ndarray) -> np.ndarray:
  """One image at a time, with what the file says of itself."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    run = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
  return np.concatenate([run(images=image[np.newaxis])["scores"] for image in images])


class Images(NamedTuple):
  """`pixels` as the exported model makes them, `scores` as it gives them; the testing images come first."""

  classes: np.ndarray
  pixels: np.ndarray
  scores: np.ndarray
  testing: int


def look(model: Path, bottlenecks: Path, data: Path) -> Images:
  exported = tf.saved_model.load(str(model / "saved_model"))
  records = []
  for path in sorted((bottlenecks / "records").glob("*.tfrecord")):
    with path.open("rb") as file:
      records += [decode_bottleneck(record) for record in read_records(file, path.name)]
  pixels = exported.preprocess(tf.constant([(data / record.key).read_bytes() for record in records]))
  scores = exported.score_images(pixels)["scores"].numpy()
  testing = json.loads((bottlenecks / "stats.json").read_text())["splits"]["testing"]["outputs"]
  return Images(np.array([record.class_index for record in records]), pixels.numpy(), scores, testing)


@pytest.fixture(scope="module")
def pictures(inception_bottlenecks, small_images, trained) -> Images:
  return look(trained.folder, inception_bottlenecks, small_images)


@pytest.fixture(scope="module")
def digit_images(made, digits) -> Images:
  return look(digits.folder, made.bottlenecks, made.data)


@pytest.mark.parametrize("which", ["trained", "digits"])
def test_the_float_file_gives_what_the_saved_model_gives(which, request):
  model = request.getfixturevalue(which)
  pictures = request.getfixturevalue({"trained": "pictures", "digits": "digit_images"}[which])
  scores = interpret(model.folder / "lite" / "model.tflite", pictures.pixels)
  np.testing.assert_allclose(scores, pictures.scores, atol=BOUND)
  np.testing.assert_array_equal(scores.argmax(axis=1), pictures.scores.argmax(axis=1))
  assert pictures.scores.std() > 0.1  # scores that are all alike would be near each other whatever computed them


def test_the_int8_files_accuracy_is_measured_on_the_testing_images(digits, digit_images):
  count = digit_images.testing
  scores = interpret(digits.folder / "int8.tflite", digit_images.pixels[:count])
  told = digits.metrics["int8"]
  assert (told["testing_images"], told["calibration_images"]) == (count, 40)
  assert told["testing_accuracy"] == np.mean(scores.argmax(axis=1) == digit_images.classes[:count])
  assert f"TensorFlow Lite, int8: testing accuracy {told['testing_accuracy']:.2%}" in digits.said
  whole = json.loads((digits.folder / "metrics.json").read_text())
  assert told["testing_accuracy"] > whole["testing_accuracy"] - 0.02 > 0.9


def test_the_int8_files_trunk_computes_in_int8(trained):
  float_file, int8_file = trained.folder / "lite" / "model.tflite", trained.folder / "int8.tflite"
  assert int8_file.stat().st_size < 0.6 * float_file.stat().st_size  # small as it is, a good part is structure
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    interpreter = tf.lite.Interpreter(str(int8_file))
  kinds = Counter(detail["dtype"] for detail in interpreter.get_tensor_details())
  # The image, the bottleneck, the head's kernel and bias, logits, scores.
  assert kinds[np.float32] == 6, kinds
  assert kinds[np.int8] > 100


def test_what_is_said_of_the_files_is_true(trained):
  assert set(trained.metrics) == {"float", "int8"}
  for entry in trained.metrics.values():
    path = trained.folder / entry["file"]
    data = path.read_bytes()
    assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert path.with_name(f"{path.stem}_labels.txt").read_text() == "black\ngrey\nwhite\n"
    assert str(ROOT).encode() not in data


def test_the_same_training_gives_the_same_files(digits, made, tmp_path):
  assert train(made.bottlenecks, tmp_path / "again", "--tflite_calibration_images=40") == 0
  for entry in digits.metrics.values():
    assert (tmp_path / "again" / entry["file"]).read_bytes() == (digits.folder / entry["file"]).read_bytes()


def test_statistics_of_very_different_sizes_survive_int8(tmp_path):
  """Of one number, a 10,000th of the others': as 8-bit numbers of one common scale, its deviation is 0, or all weights
  but its own are."""
  rng = np.random.default_rng(4)
  deviations = np.array([1e-4] + [1] * 15, np.float32)
  kernel = rng.normal(size=(16, 3)).astype(np.float32)
  kernel[0] *= 0.05  # it is below the steps of a bottleneck in int8, and lost for good: let little depend on it
  head = Head(1 / deviations, np.full(16, -0.5, np.float32), kernel, np.zeros(3, np.float32))
  encoded = []
  for _ in range(100):
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(file, "PNG")
    encoded.append(file.getvalue())
  images = preprocess(tf.constant(encoded), 4)

  def embed(images: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(tf.reshape(images[..., :1], [-1, 16]) * deviations)

  (tmp_path / "int8.tflite").write_bytes(tflite._convert(tflite._fold(embed, head, 4), encoded))
  found = interpret(tmp_path / "int8.tflite", images.numpy())
  expected = head.score(embed(images).numpy())
  assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) > 0.9


def test_calibration_draws_training_images_only(bottlenecks_folder, small_images):
  percentages = SplitPercentages()
  drawn = tflite.draw_calibration(str(bottlenecks_folder), percentages, str(small_images), 1000)
  by_bytes = {path.read_bytes(): path.relative_to(small_images).as_posix() for path in small_images.glob("*/*")}
  keys = [by_bytes[encoded] for encoded in drawn]
  assert sorted(keys) == sorted(key for key in by_bytes.values() if percentages.split_of(key) == TRAINING)
  # A smaller sample is the first of a larger one.
  assert tflite.draw_calibration(str(bottlenecks_folder), percentages, str(small_images), 7) == drawn[:7]


def moved(small_images: Path, tmp_path: Path) -> Path:
  return Path(shutil.copytree(small_images, tmp_path / "moved"))


def test_images_that_have_moved(bottlenecks_folder, small_images, tmp_path):
  elsewhere = moved(small_images, tmp_path)
  where = [f"--input={bottlenecks_folder}", f"--output={tmp_path / 'model'}", "--rounds=1"]
  int8 = [f"--tflite_int8_output_file={tmp_path / 'int8.tflite'}", f"--tflite_calibration_input={elsewhere}"]
  assert task.run([*where, *int8]) == 0
  for path in elsewhere.glob("grey/*"):
    path.unlink()
  with pytest.raises(InputError, match=r"lacks \d+ of 99 images, grey/.* --tflite_calibration_input"):
    task.run([*where, *int8])
  shutil.copytree(small_images, elsewhere, dirs_exist_ok=True)
  for path in elsewhere.glob("black/*.png"):
    path.write_bytes(next(elsewhere.glob("white/*.png")).read_bytes())
  with pytest.raises(InputError, match=r"black/\d+.png in .* has changed since its bottleneck was computed"):
    task.run([*where, *int8])


@pytest.mark.parametrize(
  ("flags", "sentence"),
  [
    (["--tflite_calibration_images=5"], "--tflite_calibration_images is only for an int8 file"),
    (["--tflite_calibration_input=x", "--tflite_output_file=y"], "--tflite_calibration_input is only for an int8 file"),
    (
      ["--tflite_int8_output_file=x", "--tflite_calibration_images=0"],
      "--tflite_calibration_images: 0 is not at least",
    ),
    (["--tflite_int8_output_file=x", "--tflite_calibration_input=/nowhere"], "are not in /nowhere, which is not a"),
    (["--tflite_int8_output_file=x", "--tflite_calibration_input=gs://a/b"], "are not in gs://a/b, which is not a"),
    (["--tflite_output_file=m.tflite", "--tflite_int8_output_file=./m.lite"], "would overwrite each other"),
    (["--tflite_output_file=TMP"], "--tflite_output_file .* is a folder: give a file, such as .*model.tflite"),
    (["--tflite_output_fil=x"], "the nearest flag is --tflite_output_file"),
  ],
)
def test_flags_that_cannot_be_used(flags, sentence, bottlenecks_folder, tmp_path):
  flags = [flag.replace("TMP", str(tmp_path)) for flag in flags]
  with pytest.raises(InputError, match=sentence):
    task.run([f"--input={bottlenecks_folder}", f"--output={tmp_path / 'model'}", *flags])
  assert not (tmp_path / "model").exists()
