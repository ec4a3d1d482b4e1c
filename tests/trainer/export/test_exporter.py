"""The exported model: what goes in and out, that it stands alone, and that it gives what the batch path gave."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.images.decode import preprocess
from beam_retrain.transforms.core.records.schema import Image as Picture
from beam_retrain.transforms.core.records.schema import decode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import read_records
from tests.helpers import ROOT

LABELS = ["black", "grey", "white"]


@pytest.fixture(scope="module")
def exported(trained_model):
  return tf.saved_model.load(str(trained_model / "saved_model"))


@pytest.fixture(scope="module")
def trunk(bottlenecks_folder):
  return tf.saved_model.load(str(bottlenecks_folder / "trunk"))


def encode(kind: str, mode: str) -> bytes:
  pixels = np.random.default_rng(3).integers(0, 256, (61, 40, 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).convert(mode).save(file, kind)
  return file.getvalue()


def describe(specs) -> dict[str, tuple]:
  return {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in specs.items()}


def test_signatures_have_the_promised_names_types_and_shapes(exported):
  outputs = {
    "key": ("string", [None]),
    "label": ("string", [None]),
    "confidence": ("float32", [None]),
    "top_labels": ("string", [None, 3]),
    "top_scores": ("float32", [None, 3]),
    "scores": ("float32", [None, 3]),
  }
  inputs = {
    "serving_default": {"key": ("string", [None]), "image_bytes": ("string", [None])},
    "bottlenecks": {"key": ("string", [None]), "bottleneck": ("float32", [None, 96])},
  }
  assert set(exported.signatures) == set(inputs)
  for name, expected in inputs.items():
    signature = exported.signatures[name]
    assert describe(signature.structured_input_signature[1]) == expected
    assert describe(signature.structured_outputs) == outputs
  assert [label.decode() for label in exported.labels.numpy()] == LABELS


def test_outputs_belong_together(exported, small_images):
  paths = sorted(small_images.glob("*/*"))[::7]
  keys = [f"any text {number}" for number in range(len(paths))]
  encoded = [path.read_bytes() for path in paths]
  result = exported.signatures["serving_default"](key=tf.constant(keys), image_bytes=tf.constant(encoded))
  result = {name: value.numpy() for name, value in result.items()}
  assert [key.decode() for key in result["key"]] == keys
  np.testing.assert_allclose(result["scores"].sum(axis=1), 1, rtol=1e-5)
  order = np.argsort(-result["scores"], axis=1, kind="stable")
  assert [[LABELS[index] for index in row] for row in order] == np.char.decode(
    result["top_labels"].astype("S")
  ).tolist()
  np.testing.assert_array_equal(result["top_scores"], np.take_along_axis(result["scores"], order, axis=1))
  np.testing.assert_array_equal(result["label"], result["top_labels"][:, 0])
  np.testing.assert_array_equal(result["confidence"], result["top_scores"][:, 0])
  # The classes are easy: a model that has learned nothing would be right in a third.
  right = [label.decode() == path.parent.name for label, path in zip(result["label"], paths, strict=True)]
  assert np.mean(right) > 0.9


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
def test_image_bytes_give_what_the_batch_path_gives(exported, trunk, kind, mode):
  encoded = tf.constant([encode(kind, mode if kind != "GIF" else "P")])
  pixels = preprocess(encoded, 75)
  # Compared before the scores, which may be so sure of a class that they hide a difference.
  np.testing.assert_allclose(exported.preprocess(encoded), pixels, atol=1e-6)
  bottleneck = trunk.embed(pixels)
  by_batch = exported.signatures["bottlenecks"](key=tf.constant(["k"]), bottleneck=bottleneck)
  served = exported.signatures["serving_default"](key=tf.constant(["k"]), image_bytes=encoded)
  np.testing.assert_allclose(served["scores"], by_batch["scores"], atol=1e-5)
  parts = exported.score_images(exported.preprocess(encoded))["scores"]
  np.testing.assert_allclose(parts, served["scores"], atol=1e-6)
  np.testing.assert_allclose(exported.score_bottlenecks(bottleneck)["scores"], by_batch["scores"], atol=1e-6)


def test_stored_bottlenecks_give_what_their_images_give(exported, bottlenecks_folder, small_images):
  """The whole way: records that the Beam job wrote, against the images they were made from."""
  stored = []
  for path in sorted((bottlenecks_folder / "records").glob("*.tfrecord")):
    with path.open("rb") as file:
      stored += [decode_bottleneck(record) for record in read_records(file, path.name)]
  assert len(stored) == 120
  keys = tf.constant([entry.key for entry in stored])
  by_bottleneck = exported.signatures["bottlenecks"](
    key=keys, bottleneck=tf.constant(np.stack([entry.vector for entry in stored]))
  )
  encoded = tf.constant([(small_images / entry.key).read_bytes() for entry in stored])
  by_image = exported.signatures["serving_default"](key=keys, image_bytes=encoded)
  np.testing.assert_allclose(by_image["scores"], by_bottleneck["scores"], atol=1e-5)
  assert by_bottleneck["scores"].numpy().std() > 0.1


def test_the_trunk_inside_gives_the_stored_bottlenecks_bit_for_bit(trained_model, bottlenecks_folder, small_images):
  """By the very path that evaluates with stored bottlenecks: the trunk that is in the model, asked for by itself."""
  handler = ImageModelHandler(str(trained_model / "saved_model"), trunk_only=True)
  stored = {}
  for path in sorted((bottlenecks_folder / "records").glob("*.tfrecord")):
    with path.open("rb") as file:
      stored.update((entry.key, entry.vector) for entry in map(decode_bottleneck, read_records(file, path.name)))
  # In another order than they were stored in.
  images = [Picture(key, "", (small_images / key).read_bytes()) for key in sorted(stored)]
  results = list(handler.infer(images, handler.load_once))
  assert [result.image.key for result in results] == sorted(stored)
  for result in results:
    assert set(result.outputs) == {"bottleneck"}
    np.testing.assert_array_equal(result.outputs["bottleneck"], stored[result.image.key])


def test_the_trunk_is_in_the_model_once(bundled_digits):
  model, trunk = (
    (folder / name / "saved_model.pb").stat().st_size
    for folder, name in ((bundled_digits / "model", "saved_model"), (bundled_digits / "bottlenecks", "trunk"))
  )
  assert model < 1.5 * trunk


def test_stands_alone(exported, trained_model, bottlenecks_folder, small_images, tmp_path):
  """In a process that cannot import any of our code, from another place on the disk."""
  moved = shutil.copytree(trained_model / "saved_model", tmp_path / "elsewhere")
  for path in moved.rglob("*"):
    for place in (trained_model, bottlenecks_folder):
      assert path.is_dir() or str(place).encode() not in path.read_bytes(), path
  image = small_images / "white" / "0.jpg"
  script = f"""
import json, sys
import tensorflow as tf
model = tf.saved_model.load({str(moved)!r})
with open({str(image)!r}, "rb") as file:
  result = model.signatures["serving_default"](key=tf.constant(["k"]), image_bytes=tf.constant([file.read()]))
ours = [name for name in sys.modules if name.split(".")[0] == "beam_retrain"]
print(json.dumps([result["label"][0].numpy().decode(), result["scores"][0].numpy().tolist(), ours]))
"""
  ran = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
  label, scores, ours = json.loads(ran.stdout.splitlines()[-1])
  here = exported.signatures["serving_default"](key=tf.constant(["k"]), image_bytes=tf.constant([image.read_bytes()]))
  assert (label, ours) == ("white", [])
  np.testing.assert_allclose(scores, here["scores"][0], atol=1e-6)


def test_a_bad_image_is_refused(exported):
  with pytest.raises(tf.errors.InvalidArgumentError):
    exported.preprocess(tf.constant([b"no image"]))


def test_nothing_in_the_model_names_a_folder_of_this_machine(trained_model):
  data = (trained_model / "saved_model" / "saved_model.pb").read_bytes()
  assert str(ROOT).encode() not in data
