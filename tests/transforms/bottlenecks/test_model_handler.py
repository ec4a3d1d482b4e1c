"""The trunk behind Beam's ModelHandler: one bad image costs nobody else anything."""

import dataclasses
import io
import struct

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that
from PIL import Image as Pillow

from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.inference import (
  Inferred,
  LoadedModel,
  infer_images,
  load_model,
  load_with_oom_fallback,
)
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.system.machine import available_cores, is_out_of_memory
from tests.helpers import encode, noise_image


def images(count: int) -> list[Image]:
  return [Image(f"a/{number}.png", "a", noise_image(number, size=(28, 28), mode="L")) for number in range(count)]


@pytest.fixture(scope="module")
def handler(tiny_trunk) -> ImageModelHandler:
  return ImageModelHandler(str(tiny_trunk), batch_size=4)


def test_gives_one_vector_per_image_in_order(handler):
  model = handler.load_once()
  results = list(handler.run_inference(images(6), model))
  assert [result.image.key for result in results] == [f"a/{number}.png" for number in range(6)]
  for result, image in zip(results, images(6), strict=True):
    (alone,) = handler.run_inference([image], model)
    # Not to the last bit: a batch may be cut up otherwise by the matrix library.
    np.testing.assert_allclose(result.outputs["bottleneck"], alone.outputs["bottleneck"], rtol=1e-5, atol=1e-6)
    assert (result.image.format, result.image.height, result.image.width) == ("png", 28, 28)


def test_a_bad_image_is_named_and_the_others_of_its_batch_are_as_without_it(handler):
  model = handler.load_once()
  good = images(4)
  truncated = Image("a/cut.jpg", "a", noise_image(9, "JPEG", (28, 28))[:-100])
  mixed = [good[0], truncated, good[1], Image("a/empty.png", "a", b""), Image("a/t.png", "a", b"text"), *good[2:]]
  results = list(handler.run_inference(mixed, model))
  assert [type(result) for result in results] == [
    Inferred,
    Quarantined,
    Inferred,
    Quarantined,
    Quarantined,
    *[Inferred] * 2,
  ]
  bad = [result for result in results if isinstance(result, Quarantined)]
  assert [(entry.key, entry.reason) for entry in bad] == [
    ("a/cut.jpg", Reason.TRUNCATED),
    ("a/empty.png", Reason.EMPTY),
    ("a/t.png", Reason.NOT_AN_IMAGE),
  ]
  assert bad[0].size_bytes == len(truncated.encoded)
  clean = list(handler.run_inference(good, model))
  kept = [result for result in results if isinstance(result, Inferred)]
  for result, expected in zip(kept, clean, strict=True):
    assert result.image.key == expected.image.key
    np.testing.assert_allclose(result.outputs["bottleneck"], expected.outputs["bottleneck"], rtol=1e-5, atol=1e-6)


def test_a_batch_of_bad_images_only(handler):
  results = list(handler.run_inference([Image("a/1", "a", b""), Image("a/2", "a", b"x")], handler.load_once()))
  assert [result.reason for result in results] == [Reason.EMPTY, Reason.NOT_AN_IMAGE]


def test_what_is_quarantined_already_passes_through(handler):
  entry = Quarantined("a/0", 3, Reason.BAD_LABEL, "why")
  first, _ = handler.infer([entry, images(1)[0]], handler.load_once())
  assert first is entry


def test_the_model_is_loaded_once_per_process(handler, tiny_trunk):
  assert handler.load_once() is handler.load_once()


def test_works_in_anyones_pipeline(tiny_trunk):
  def check(results):
    assert sorted(result.image.key for result in results) == ["a/0.png", "a/1.png", "a/2.png"]
    assert all(np.isfinite(result.outputs["bottleneck"]).all() for result in results)

  with beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner"])) as root:
    results = root | beam.Create(images(3)) | RunInference(ImageModelHandler(str(tiny_trunk), batch_size=4))
    assert_that(results, check)


def of_shade(name: str, shade: int) -> Image:
  return Image(f"a/{name}.png", "a", encode(np.full((8, 8), shade, np.uint8)))


def save_trunk_of(function, folder) -> ImageModelHandler:
  module = tf.Module()
  module.embed = tf.function(function, input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
  tf.saved_model.save(module, str(folder))
  return ImageModelHandler(str(folder), batch_size=3)


def test_values_that_are_not_finite_are_a_model_error(tmp_path):
  # 0/0 for a black image, which is NaN
  handler = save_trunk_of(lambda pixels: tf.reduce_sum(pixels, [1, 2]) / tf.reduce_max(pixels, [1, 2]), tmp_path / "t")
  good, black = handler.run_inference([of_shade("grey", 100), of_shade("black", 0)], handler.load_once())
  assert isinstance(good, Inferred)
  assert (black.key, black.reason) == ("a/black.png", Reason.MODEL_ERROR)


def refuses_black(pixels: tf.Tensor) -> tf.Tensor:
  brightest = tf.reduce_max(pixels, [1, 2])
  with tf.control_dependencies([tf.debugging.assert_positive(brightest)]):
    return tf.identity(brightest)


def test_an_image_that_the_model_refuses_stands_alone(tmp_path):
  handler = save_trunk_of(refuses_black, tmp_path / "trunk")
  batch = [of_shade("grey", 51), of_shade("black", 0), of_shade("white", 255)]
  grey, black, white = handler.run_inference(batch, handler.load_once())
  assert (black.key, black.reason) == ("a/black.png", Reason.MODEL_ERROR)
  np.testing.assert_allclose(grey.outputs["bottleneck"], 0.2, atol=1e-6)
  np.testing.assert_allclose(white.outputs["bottleneck"], 1.0, atol=1e-6)


def test_a_model_that_refuses_everything_fails_the_job(tmp_path):
  handler = save_trunk_of(refuses_black, tmp_path / "trunk")
  with pytest.raises(tf.errors.InvalidArgumentError):
    handler.run_inference([of_shade("black", 0), of_shade("too", 0)], handler.load_once())


def test_what_cannot_be_loaded_is_named(tmp_path):
  with pytest.raises(InputError, match=f"{tmp_path}/none cannot be loaded"):
    load_model(str(tmp_path / "none"))
  tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
  with pytest.raises(InputError, match="neither a trunk nor a model"):
    load_model(str(tmp_path / "other"))


def test_a_model_from_before_its_trunk_could_be_asked_says_what_to_do(tmp_path):
  module = tf.Module()
  module.preprocess = tf.function(lambda encoded: encoded, input_signature=[tf.TensorSpec([None], tf.string)])
  module.score_images = tf.function(lambda x: {"scores": x}, input_signature=[tf.TensorSpec([None, 8, 8, 3])])
  tf.saved_model.save(module, str(tmp_path / "old"))
  assert load_model(str(tmp_path / "old"))
  sentence = f"{tmp_path}/old was trained with an earlier version and cannot compute bottlenecks"
  with pytest.raises(InputError, match=f"{sentence}: run `beam-retrain train` again"):
    load_model(str(tmp_path / "old"), trunk_only=True)


def test_a_trunk_alone_is_its_own_trunk(tiny_trunk, handler):
  alone = ImageModelHandler(str(tiny_trunk), batch_size=4, trunk_only=True)
  for result, expected in zip(
    alone.infer(images(3), alone.load_once), handler.infer(images(3), handler.load_once), strict=True
  ):
    np.testing.assert_array_equal(result.outputs["bottleneck"], expected.outputs["bottleneck"])


def test_a_model_is_loaded_at_the_first_image_that_can_be_decoded(handler):
  loaded = []

  def load():
    loaded.append(1)
    return handler.load_once()

  bad = [Image("a/1", "a", b""), Image("a/2", "a", b"x"), Quarantined("a/3", 3, Reason.BAD_LABEL, "why")]
  assert [entry.key for entry in handler.infer(bad * 2, load)] == ["a/1", "a/2", "a/3"] * 2
  assert not loaded
  assert isinstance(list(handler.infer([*bad, *images(1)], load))[-1], Inferred)
  assert loaded


def test_images_of_one_size_go_through_the_fast_way_with_the_same_bits(tmp_path):
  handler = save_trunk_of(lambda pixels: tf.reshape(pixels, [-1, 192]), tmp_path / "t")
  model = handler.load_once()
  small = [Image("a", "a", of_shade("a", shade).encoded, "png", 5, 8) for shade in (3, 100)]
  taken = []
  watched = dataclasses.replace(model, preprocess_alike=lambda encoded: taken.append(1) or model.preprocess(encoded))
  for changed, fast in (({}, 1), ({"height": 6}, 0), ({"format": "bmp"}, 0)):
    taken.clear()
    watched.decode([small[0], dataclasses.replace(small[1], **changed)])
    assert len(taken) == fast, changed
  taken.clear()
  watched.decode([dataclasses.replace(image, width=9) for image in small])
  watched.decode([Image("a", "a", image.encoded) for image in small])  # nobody has looked at them
  assert taken == []
  np.testing.assert_array_equal(model.decode(small), model.preprocess([image.encoded for image in small]))


def test_gifs_of_one_size_whose_first_frames_differ_are_decoded_each_as_it_is(handler):
  def gif(frame_px: int) -> bytes:
    file = io.BytesIO()
    Pillow.new("L", (frame_px, frame_px), 120).save(file, "GIF")
    whole = bytearray(file.getvalue())
    whole[6:10] = struct.pack("<HH", 28, 28)  # of the image, not of the frame
    return bytes(whole)

  given = [Image(f"a/{frame_px}.gif", "a", gif(frame_px)) for frame_px in (28, 20)]
  results = list(handler.run_inference(given, handler.load_once()))
  assert [(result.image.height, result.image.width) for result in results] == [(28, 28), (28, 28)]


def test_a_batch_that_memory_does_not_do_for_is_halved_and_stays_so():
  loaded = []

  def load(batch_size: int) -> LoadedModel:
    loaded.append(batch_size)

    def infer(pixels):
      np.empty(max(0, len(pixels) - 2) << 46)  # more, above two images, than the 2**47 bytes that can be addressed
      return {"sum": pixels.sum((1, 2, 3))}

    return LoadedModel(lambda encoded: np.stack([np.full((8, 8, 3), len(one), np.float32) for one in encoded]), infer)

  model = load_with_oom_fallback(load, 8)
  assert model.largest_batch() == 8
  pictures = [Image("a", "a", noise_image(seed)) for seed in range(10)]  # of other lengths each
  for _ in range(2):
    results = list(infer_images(pictures, model, batch_size=8))
    assert all(isinstance(result, Inferred) for result in results)
    assert [result.outputs["sum"] for result in results] == [192 * len(image.encoded) for image in pictures]
    assert model.largest_batch() == 2
  assert loaded == [8, 4, 2]


@pytest.mark.parametrize("where", ["decode", "infer"])
def test_an_image_that_memory_does_not_do_for_is_not_quarantined(where):
  def needing_memory(here: str, pixels: np.ndarray) -> np.ndarray:
    np.empty((here == where and pixels.max() > 200) << 47)  # more, for a white one, than can be addressed
    return pixels

  model = LoadedModel(
    lambda encoded: needing_memory("decode", np.stack([Pillow.open(io.BytesIO(one)) for one in encoded])),
    lambda pixels: {"sum": needing_memory("infer", pixels).sum((1, 2))},
  )
  with pytest.raises(MemoryError):
    list(infer_images([of_shade("grey", 100), of_shade("white", 255)], model, batch_size=2))


@pytest.mark.parametrize(
  ("error", "is_it"),
  [
    (MemoryError(), True),
    (tf.errors.ResourceExhaustedError(None, None, "x"), True),
    (RuntimeError("Exception from src/x.cpp: std::bad_alloc"), True),
    (RuntimeError("[CPU] could not allocate 5 bytes"), True),
    (OSError("out of memory error when reading image file"), True),
    (RuntimeError("no such layer"), False),
    (tf.errors.InvalidArgumentError(None, None, "out of memory"), False),
    (ValueError("out of memory"), False),
  ],
)
def test_what_is_for_want_of_memory(error, is_it):
  assert is_out_of_memory(error) == is_it


def test_threads_are_the_cores_shared_out_to_the_processes():
  cores = available_cores()
  assert ImageModelHandler("x").thread_limits.here == cores
  assert ImageModelHandler("x", processes=0).thread_limits.here == 1
  assert ImageModelHandler("x", processes=2).thread_limits.here == max(1, cores // 2)
  assert ImageModelHandler("x", processes=2, threads=7).thread_limits.here == 7
