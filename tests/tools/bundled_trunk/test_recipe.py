"""How the bundled trunk learns: warps, mixture, loss and probes. No fonts but Pillow's own, no network, no training."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFont

from tools.bundled_trunk import glyphs, mixture, pens, probes, task, warps

PITCH_PX = glyphs.FRAME_PX / glyphs.GRID


@pytest.fixture(scope="module")
def font_bank():
  return glyphs.Bank.of(glyphs.draw_font(ImageFont.load_default(100)))


@pytest.fixture(scope="module")
def pen_bank():
  return pens.draw_digits(200, seed=3)


# Warps


def test_warps_follow_their_seed_and_stay_in_range(pen_bank):
  def draw(seed):
    return warps.warp(pen_bank.fields, pen_bank.half_widths, tf.constant(seed)).numpy()

  images = draw([1, 2])
  assert images.shape == (200, 28, 28)
  assert images.min() == 0
  assert 0.9 < images.max() <= 1
  np.testing.assert_allclose(images * 255, np.rint(images * 255), atol=1e-3)
  np.testing.assert_array_equal(images, draw([1, 2]))
  assert (images != draw([1, 3])).any(axis=(1, 2)).all()


def test_thickness_is_drawn_anew_but_a_bold_face_keeps_its_hair_lines():
  count = 4000
  draw = warps._Draws(tf.constant(count), tf.constant([1, 2]))
  own = np.repeat(np.float32([1.0, 4.0]), count // 2)
  change = warps._thickening(tf.constant(own), draw).numpy().mean(axis=1)
  thin, bold = own[: count // 2] + change[: count // 2], change[count // 2 :]
  assert np.percentile(thin, 5) < 0.75
  assert np.percentile(thin, 95) > 1.75
  assert bold.mean() == pytest.approx(-0.45 * 4, abs=0.05)


def test_an_undistorted_place_reads_the_field_itself(pen_bank):
  axis = (np.arange(glyphs.GRID) + 0.5) * PITCH_PX - glyphs.FRAME_PX / 2
  places = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(1, -1, 2).astype(np.float32)
  read = warps._sample(tf.constant(pen_bank.fields[:1]), tf.constant(places)).numpy()
  stored = (pen_bank.fields[0].astype(np.float32).ravel() - 128) / glyphs.STEPS_PER_PX
  np.testing.assert_allclose(read[0], stored, atol=0.02)


def test_the_jpeg_without_bytes_is_pillows_jpeg(pen_bank):
  drawn = warps.warp(pen_bank.fields[:50], pen_bank.half_widths[:50], tf.constant([5, 6])).numpy()
  noise = np.random.default_rng(0).uniform(0, 40, drawn.shape)
  levels = np.clip(drawn * 255 + noise, 0, 255).astype(np.uint8)
  files = [io.BytesIO() for _ in levels]
  for pixels, file in zip(levels, files, strict=True):
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
  expected = np.stack([np.asarray(Image.open(file)) for file in files]).astype(np.float32)
  got = warps.through_jpeg(tf.constant(levels / np.float32(255))).numpy() * 255
  assert np.abs(expected - levels).mean() > 3  # there was something to lose
  assert np.abs(got - expected).mean() < 0.4


def test_the_trunk_sees_what_the_pipeline_would_show_it():
  grey = np.random.default_rng(0).uniform(0, 1, (2, 28, 28)).astype(np.float32)
  shown = warps.trunk_input(tf.constant(grey), 75).numpy()
  expected = tf.image.resize(np.repeat(grey[..., None], 3, axis=-1), [75, 75], method="bilinear").numpy()
  np.testing.assert_allclose(shown, expected, atol=1e-6)


# The mixture


def test_sources_and_kinds_come_in_their_shares(pen_bank, font_bank):
  shares = {("pens", "digits"): 0.5, ("print", "digits"): 0.1, ("print", "letters"): 0.4}
  mix = mixture.Mixture({"pens": pen_bank, "print": font_bank}, shares)
  _, labels = mix.batch(tf.constant([1, 2]), 6000)
  counts = np.bincount(labels.numpy(), minlength=47)
  assert counts[:10].sum() / 6000 == pytest.approx(0.6, abs=0.03)
  assert counts[:10].min() > 250
  assert counts[10:].min() > 30


def test_the_shares_of_the_recipe_are_a_whole():
  assert sum(mixture.SHARES.values()) == pytest.approx(1.0)


def test_a_source_without_a_kind_is_named(pen_bank):
  with pytest.raises(ValueError, match="pens has no letters"):
    mixture.Mixture({"pens": pen_bank}, {("pens", "letters"): 1.0})


def test_a_run_that_goes_on_sees_what_it_would_have_seen(pen_bank):
  mix = mixture.Mixture({"pens": pen_bank}, {("pens", "digits"): 1.0})
  whole = list(mixture.training_batches(mix, 9, range(0, 4), 8))
  rest = list(mixture.training_batches(mix, 9, range(2, 4), 8))
  assert len(whole) == 4
  assert len(rest) == 2
  for (images, labels), (images_again, labels_again) in zip(whole[2:], rest, strict=True):
    np.testing.assert_array_equal(images, images_again)
    np.testing.assert_array_equal(labels, labels_again)
  assert not np.array_equal(whole[0][0], whole[1][0])
  assert not list(mixture.training_batches(mix, 9, range(4, 4), 8))


# The task and its probes


def test_a_digit_competes_with_digits_only():
  logits = np.zeros((2, 47), np.float32)
  labels = tf.constant([3, 20])
  level = float(task.kind_loss(tf.constant(logits), labels, smoothing=0.0))
  assert level == pytest.approx((np.log(10) + np.log(37)) / 2, rel=1e-5)
  logits[0, 10:], logits[1, :10] = 50.0, 50.0
  assert float(task.kind_loss(tf.constant(logits), labels, smoothing=0.0)) == pytest.approx(level, rel=1e-5)
  flat = tf.zeros((2, 47))
  smoothed = float(task.kind_loss(flat, labels, smoothing=0.1))
  assert smoothed == pytest.approx(level, rel=1e-5)  # the other kind's targets, smoothed out of nothing, count not
  logits[0, 4] = 50.0
  assert float(task.kind_loss(tf.constant(logits), labels, smoothing=0.0)) > 10
  assert probes.group_accuracy(logits, labels.numpy()) == (0.0, 0.0)
  logits[0, 3], logits[1, 20] = 60.0, 10.0
  assert probes.group_accuracy(logits, labels.numpy()) == (1.0, 1.0)


def brightness_model():
  """Stands in for a trunk: mean brightness of the image, twice over, so that there are two features."""
  image = keras.Input((75, 75, 3))
  mean = keras.layers.GlobalAveragePooling2D()(image)
  return keras.Model(image, mean)


def test_vectors_do_not_depend_on_the_padding_of_the_last_batch():
  images = np.random.default_rng(0).uniform(0, 1, (300, 28, 28)).astype(np.float32)
  model = brightness_model()
  together = probes.vectors(model, images)
  assert together.shape == (300, 3)
  np.testing.assert_allclose(together[290:], probes.vectors(model, images[290:]), atol=1e-6)


def test_scikit_digits_are_framed_and_in_range():
  images, labels = probes.scikit_digits()
  assert images.shape == (1797, 28, 28)
  assert images.dtype == np.float32
  assert set(labels) == set(range(10))
  assert images.min() == 0
  assert images.max() <= 1
  assert not images[:, :4].any()
  assert not images[:, :, -4:].any()
  assert images[:, 4:24].any()


def test_help_teaches_and_flags_are_not_abbreviated(capsys):
  with pytest.raises(SystemExit) as stop:
    task.parse(["--help"])
  assert stop.value.code == 0
  shown = capsys.readouterr().out
  assert "python -m tools.bundled_trunk.task --fonts_dir" in shown
  assert "goes on from" in shown
  with pytest.raises(SystemExit) as stop:
    task.parse(["--fonts", "a", "--work_dir", "b", "--output", "c"])
  assert stop.value.code == 2
