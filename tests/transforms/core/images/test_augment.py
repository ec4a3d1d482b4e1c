"""Variants of an image: drawn from key, copy and seed alone, over the whole range; made as `retrain.py` made them."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.augment import (
  DISTORTED,
  Distortions,
  Variant,
  count_distorted,
  key_of_original,
  variant_key,
)
from beam_retrain.transforms.core.images.augment_tf import make_distort_all
from beam_retrain.transforms.core.images.decode import preprocess
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.shards import ShardReport
from tests.helpers import ROOT, noise_image

_ALL = Distortions(flip_left_right=True, random_crop=20, random_scale=50, random_brightness=30, copies=5, seed=7)
_KEYS = [f"training/{number % 10}/{number}.jpg" for number in range(2_000)]


def test_known_variants_stay_what_they_are():
  # What is stored was drawn so: another draw for the same key, copy and seed would make two kinds of one cache.
  assert _ALL.variants("training/5/17.jpg", 75)[:2] == [
    Variant(side_px=102, top_px=15, left_px=4, is_mirrored=True, brightness=1.1479804263915867),
    Variant(side_px=94, top_px=14, left_px=16, is_mirrored=False, brightness=0.8890075563918799),
  ]


def test_another_process_with_another_hash_seed_draws_the_same():
  code = (
    "from beam_retrain.transforms.core.images.augment import Distortions\n"
    f"print(Distortions(**{_ALL.to_settings()!r}).variants('é/1.jpg', 299))"
  )
  drawn = [
    subprocess.run(
      [sys.executable, "-c", code],
      cwd=ROOT,
      env={"PYTHONHASHSEED": seed},
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
    for seed in ("1", "2")
  ]
  assert drawn == [repr(_ALL.variants("é/1.jpg", 299))] * 2


def test_key_copy_and_seed_each_change_the_variant_and_the_number_of_copies_does_not():
  variants = _ALL.variants("a/1.jpg", 299)
  assert len(set(variants)) == 5
  assert dataclasses.replace(_ALL, copies=2).variants("a/1.jpg", 299) == variants[:2]
  assert not set(variants) & set(_ALL.variants("a/2.jpg", 299))
  assert not set(variants) & set(dataclasses.replace(_ALL, seed=8).variants("a/1.jpg", 299))


def test_the_whole_range_is_drawn_and_nothing_outside_of_it():
  drawn = [variant for key in _KEYS for variant in _ALL.variants(key, 100)]
  sides = np.array([variant.side_px for variant in drawn])
  # 1.2 of the trunk's side, times 1 to 1.5
  assert (sides.min(), sides.max()) == (120, 179)
  assert abs(sides.mean() - 149.5) < 1
  for name in ("top_px", "left_px"):
    starts = np.array([getattr(variant, name) for variant in drawn])
    assert (starts >= 0).all()
    assert (starts <= sides - 100).all()
    assert (starts == 0).any()
    assert (starts == sides - 100).any()
    assert abs((starts / (sides - 100)).mean() - 0.5) < 0.02
  brightness = np.array([variant.brightness for variant in drawn])
  assert 0.7 <= brightness.min() < 0.701
  assert 1.299 < brightness.max() <= 1.3
  assert abs(brightness.mean() - 1) < 0.01
  assert abs(np.mean([variant.is_mirrored for variant in drawn]) - 0.5) < 0.02


def test_the_draws_of_a_variant_are_independent():
  drawn = [variant for key in _KEYS for variant in _ALL.variants(key, 100)]
  rooms = np.array([variant.side_px - 100 for variant in drawn])
  columns = [
    rooms,
    [variant.top_px for variant in drawn] / rooms,
    [variant.left_px for variant in drawn] / rooms,
    [variant.is_mirrored for variant in drawn],
    [variant.brightness for variant in drawn],
  ]
  correlations = np.corrcoef(np.array(columns, float)) - np.eye(len(columns))
  assert np.abs(correlations).max() < 0.05


@pytest.mark.parametrize(
  ("one", "expected"),
  [
    ({"flip_left_right": True}, (75, 75, 0, {False, True}, 1, 1)),
    ({"random_crop": 10}, (82, 82, 7, {False}, 1, 1)),  # 82.5 pixels, rounded down
    ({"random_scale": 10}, (75, 82, 7, {False}, 1, 1)),
    ({"random_brightness": 100}, (75, 75, 0, {False}, 0, 2)),
  ],
)
def test_each_distortion_does_what_it_says_and_no_more(one, expected):
  distortions = Distortions(**one)
  drawn = [variant for key in _KEYS for variant in distortions.variants(key, 75)]
  smallest, largest, room, mirrored, dark, bright = expected
  assert {min(variant.side_px for variant in drawn), max(variant.side_px for variant in drawn)} == {smallest, largest}
  assert max(variant.top_px for variant in drawn) == room
  assert max(variant.left_px for variant in drawn) == room
  assert {variant.is_mirrored for variant in drawn} == mirrored
  assert dark <= min(variant.brightness for variant in drawn) < dark + 0.01
  assert bright - 0.01 < max(variant.brightness for variant in drawn) <= bright


def test_a_margin_of_whole_pixels_is_not_a_pixel_short():
  # In binary fractions 1.15 * 100 is 114.99999999999999.
  assert {Distortions(random_crop=15).variants(key, 100)[0].side_px for key in _KEYS} == {115}


@pytest.mark.parametrize(
  ("values", "sentence"),
  [
    ({}, "nothing is distorted"),
    ({"random_crop": -1}, "--random_crop -1 would make the image smaller"),
    ({"random_scale": -1}, "--random_scale -1 would make the image smaller"),
    ({"random_brightness": -1}, "not in 0..100"),
    ({"random_brightness": 101}, "not in 0..100"),
    ({"random_crop": 10, "copies": 0}, "--distortion_copies 0 is not in"),
    ({"random_crop": 10, "copies": 101}, "--distortion_copies 101 is not in"),
    ({"random_crop": 300, "random_scale": 101}, "8.04 times as wide"),
  ],
)
def test_what_makes_no_sense_is_refused(values, sentence):
  with pytest.raises(ValueError, match=sentence):
    Distortions(**values)
  Distortions(random_crop=300, random_scale=100, copies=100)  # the largest that is allowed


def test_the_settings_are_read_back():
  assert Distortions(**_ALL.to_settings()) == _ALL


def test_a_variant_leads_to_its_image_whatever_that_is_called():
  for key in ("5/17.jpg", "c#/1.jpg", "5/17.jpg#2"):
    assert key_of_original(variant_key(key, 12)) == key


def bilinear(pixels: np.ndarray, side: int) -> np.ndarray:
  """[H, W, 3] -> [side, side, 3], pixel centres aligned, borders repeated, not antialiased: by its definition."""

  def places(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    at = (np.arange(side) + 0.5) * size / side - 0.5
    below = np.floor(at)
    return np.clip(below, 0, size - 1).astype(int), np.clip(below + 1, 0, size - 1).astype(int), at - below

  low, high, part = places(pixels.shape[0])
  rows = pixels[low] * (1 - part)[:, None, None] + pixels[high] * part[:, None, None]
  low, high, part = places(pixels.shape[1])
  return rows[:, low] * (1 - part)[None, :, None] + rows[:, high] * part[None, :, None]


@pytest.mark.parametrize("size", [(28, 28), (60, 40), (150, 130)])
def test_the_pixels_are_those_of_an_independent_computation(size):
  images = [noise_image(number, size=size) for number in range(3)]
  keys = ["a/1.png", "a/2.png", "b/1.png"]
  made = make_distort_all(_ALL, 64)(images, keys).numpy()
  assert made.shape == (3, 5, 64, 64, 3)
  mirrored = set()
  for encoded, key, variants in zip(images, keys, made, strict=True):
    pixels = np.asarray(Image.open(io.BytesIO(encoded)), np.float64) / 255
    for drawn, found in zip(_ALL.variants(key, 64), variants, strict=True):
      expected = bilinear(pixels, drawn.side_px)[drawn.top_px :][:64, drawn.left_px :][:, :64]
      expected = expected[:, ::-1] if drawn.is_mirrored else expected
      np.testing.assert_allclose(found, expected * drawn.brightness, atol=1e-4)
      mirrored.add(drawn.is_mirrored)
  assert mirrored == {False, True}
  assert made.max() > 1  # brightness is not clipped, as there


def test_a_variant_that_distorts_nothing_is_what_the_trunk_sees_of_the_image():
  # Flipping is all that is asked for: half of the variants are the image itself, to the last bit.
  flip = Distortions(flip_left_right=True, copies=6)
  images = [noise_image(0, "JPEG", (50, 30)), noise_image(0, size=(28, 28))]
  keys = ["a/1.jpg", "a/2.png"]
  made = make_distort_all(flip, 75)(images, keys).numpy()
  plain = tf.function(lambda encoded: preprocess(encoded, 75))(tf.constant(images)).numpy()  # as `load_model` does
  for key, variants, expected in zip(keys, made, plain, strict=True):
    mirrored = [drawn.is_mirrored for drawn in flip.variants(key, 75)]
    assert set(mirrored) == {False, True}
    for is_mirrored, found in zip(mirrored, variants, strict=True):
      np.testing.assert_array_equal(found, expected[:, ::-1] if is_mirrored else expected)


def test_an_image_that_cannot_be_decoded_is_an_error():
  with pytest.raises(Exception, match=r"decode|image"):
    make_distort_all(_ALL, 32)([noise_image(0), b"no image"], ["a", "b"])


def report(file: str, inputs: int, bad: tuple[str, ...] = (), records: int | None = None, **extra) -> ShardReport:
  quarantined = tuple(Quarantined(key, 1, Reason.EMPTY, "", "training") for key in bad)
  outputs = inputs - len(bad) if records is None else records
  return ShardReport(file, file.split("-")[0], inputs, outputs, 0, "", "", {}, quarantined, extra)


_IMAGES = [
  report("training-00000-of-00002.tfrecord", 10, ("x", "y")),
  report("training-00001-of-00002.tfrecord", 5),
  report("testing-00000-of-00001.tfrecord", 100),
]


def variants_of(number: int, images: int, validation: int, bad: tuple[str, ...] = (), copies: int = 3) -> ShardReport:
  extra = {DISTORTED: {"pictures": images, "validation": validation}}
  name = f"training-{number:05d}-of-00002.tfrecord"
  return report(name, 0, bad, images * copies, **extra)


def test_the_ledger_of_the_variants_closes():
  three = Distortions(flip_left_right=True, copies=3)
  found = count_distorted(three, _IMAGES, [variants_of(0, 6, 2, ("x", "y")), variants_of(1, 4, 0, ("z",))])
  # `z` has a bottleneck; the trunk refused one of its variants.
  assert found == {"copies": 3, "pictures": 10, "records": 30, "left_out": 1}


@pytest.mark.parametrize(
  "distorted",
  [
    [variants_of(0, 6, 2, ("x", "y"))],
    [variants_of(0, 6, 2, ("x", "y")), variants_of(1, 4, 0)],
    [variants_of(0, 6, 2, ("x", "y")), variants_of(1, 5, 0, copies=2)],
    [variants_of(0, 6, 1, ("x", "y")), variants_of(1, 5, 0)],
  ],
)
def test_lost_variants_are_found(distorted):
  with pytest.raises(InputError, match="the counts do not add up"):
    count_distorted(Distortions(flip_left_right=True, copies=3), _IMAGES, distorted)
