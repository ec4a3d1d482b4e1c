"""The table-driven Inception v3 against keras.applications, and the loader of the bundled weights."""

import keras
import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models import inception
from tools.bundled_trunk.task import save_weights


@pytest.fixture(scope="module")
def small():
  return inception.build_inception_v3(0.25, 75)


def test_full_width_equals_keras_applications_layer_for_layer():
  theirs = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=None, input_shape=(107, 107, 3))
  ours = inception.build_inception_v3(1.0, 107)
  assert [tuple(w.shape) for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
  kinds = [type(layer).__name__ for layer in ours.layers if not isinstance(layer, keras.layers.Rescaling)]
  assert kinds == [type(layer).__name__ for layer in theirs.layers]

  # Statistics other than 0 and 1, so that a batch norm fed from the wrong place would show.
  rng = np.random.default_rng(7)
  weights = [w + rng.uniform(0.0, 0.5, w.shape).astype(np.float32) * (w.ndim == 1) for w in theirs.get_weights()]
  theirs.set_weights(weights)
  ours.set_weights(weights)
  image = rng.uniform(0, 1, (2, 107, 107, 3)).astype(np.float32)
  expected = theirs(image * 2 - 1).numpy()
  assert expected.std() > 1e-3
  np.testing.assert_allclose(ours(image).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_quarter_width_is_the_documented_size(small):
  assert small.input_shape == (None, 75, 75, 3)
  assert small.output_shape == (None, 512)
  assert 1_300_000 < small.count_params() < 1_450_000


@pytest.mark.parametrize(("width", "input_px", "named"), [(0.0, 75, "width"), (0.25, 74, "input_px")])
def test_impossible_sizes_are_named(width, input_px, named):
  with pytest.raises(ValueError, match=named):
    inception.build_inception_v3(width, input_px)


def test_weights_survive_a_round_trip_to_half_precision(small, tmp_path):
  save_weights(small, tmp_path / "weights.npz")
  other = inception.build_inception_v3(0.25, 75)
  inception.load_weights(other, tmp_path / "weights.npz")
  assert len(small.get_weights()) == len(other.get_weights()) == 94 * 4
  for ours, theirs in zip(small.get_weights(), other.get_weights(), strict=True):
    np.testing.assert_array_equal(ours.astype(np.float16).astype(np.float32), theirs)


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path):
  model = inception.build_inception_v3(0.25, 75)
  model.get_layer("norm_00").beta.assign(np.full(8, 1e6, np.float32))
  with np.errstate(over="ignore"), pytest.raises(ValueError, match="norm_00/beta"):
    save_weights(model, tmp_path / "weights.npz")


def test_missing_damaged_and_foreign_weights_are_told_apart(small, tmp_path):
  path = tmp_path / "weights.npz"
  with pytest.raises(InputError, match="missing"):
    inception.load_weights(small, path)

  path.write_bytes(b"not an archive")
  with pytest.raises(InputError, match="damaged"):
    inception.load_weights(small, path)

  save_weights(small, path)
  whole = path.read_bytes()
  middle = len(whole) // 2
  for damaged in (whole[:-5000], whole[:middle] + b"beam" + whole[middle + 4 :]):
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="damaged"):
      inception.load_weights(small, path)
  with open(path, "wb") as file:
    np.save(file, np.zeros(3))
  with pytest.raises(InputError, match="damaged"):
    inception.load_weights(small, path)

  save_weights(inception.build_inception_v3(0.5, 75), path)
  with pytest.raises(InputError, match=r"does not fit.*conv_00/kernel"):
    inception.load_weights(small, path)

  # A pickle would run code when loaded: it is refused unread.
  np.savez(path, **{"conv_00/kernel": np.array([{"a": 1}], dtype=object)})
  with pytest.raises(InputError, match="damaged"):
    inception.load_weights(small, path)
