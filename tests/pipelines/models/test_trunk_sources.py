"""Every trunk source ends as one kind of SavedModel folder; what cannot be had is told in a sentence."""

import dataclasses
import hashlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.pipelines.models.trunk_sources import HUB_INCEPTION_V3, load_stored_trunk, load_trunk, prepare
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.saved_model import check_trunk, load_saved_model
from beam_retrain.transforms.core.run.output_folder import read_info
from beam_retrain.transforms.core.runtimes.prepared import load_prepared
from beam_retrain.transforms.core.runtimes.variant import Variant

_IMAGES = np.random.default_rng(5).random((2, 299, 299, 3), np.float32)


def embed(trunk, tmp_path, images=_IMAGES) -> np.ndarray:
  """As a worker does: from the folder."""
  trunk.save(str(tmp_path / "trunk"))
  return load_saved_model(str(tmp_path / "trunk")).embed(tf.constant(images)).numpy()


def test_tf_hub_offline(tmp_path, monkeypatch):
  """From a cache as the library lays it out: one folder per handle, named by its SHA-1."""
  keras.utils.set_random_seed(11)
  inputs = keras.Input((299, 299, 3))
  normal = keras.layers.BatchNormalization()(keras.layers.Conv2D(2048, 8, strides=32)(inputs))
  module = tf.Module()
  module.model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(normal))  # as large as Inception v3 outside

  # A reusable SavedModel: callable, tracking its variables.
  @tf.function(input_signature=[tf.TensorSpec([None, 299, 299, 3], tf.float32)])
  def call(images):
    return module.model(images * 2.0 - 1.0, training=False)

  module.__call__ = call
  folder = tmp_path / "hub" / hashlib.sha1(HUB_INCEPTION_V3.encode()).hexdigest()
  tf.saved_model.save(module, str(folder), signatures={"serving_default": call})
  monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
  trunk = load_trunk("inception_v3")
  assert (trunk.info.handle, trunk.info.input_px, trunk.info.dimensions) == ("inception_v3", 299, 2048)
  expected = call(_IMAGES).numpy()
  result = embed(trunk, tmp_path)
  assert result.shape == (2, 2048)
  np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)


def test_a_module_of_tensorflow_1(tmp_path, monkeypatch):
  handle = "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/3"
  folder = tmp_path / hashlib.sha1(handle.encode()).hexdigest()
  weights = np.random.default_rng(6).random((192, 8), np.float32)
  v1 = tf.compat.v1
  info = v1.saved_model.utils.build_tensor_info
  with tf.Graph().as_default(), v1.Session() as session:
    images = v1.placeholder(tf.float32, [None, 16, 16, 3])
    variable = v1.get_variable("weights", initializer=weights, use_resource=False)  # by reference, as they all were
    pooled = tf.reshape(tf.nn.avg_pool2d(images, 2, 2, "SAME"), [-1, 192])
    signature = v1.saved_model.build_signature_def({"images": info(images)}, {"default": info(pooled @ variable)})
    session.run(v1.global_variables_initializer())
    builder = v1.saved_model.Builder(str(folder))
    builder.add_meta_graph_and_variables(session, tags=[], signature_def_map={"default": signature})
    builder.save()
  (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")
  monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
  trunk = load_trunk(handle)
  assert (trunk.info.input_px, trunk.info.dimensions) == (16, 8)
  pictures = _IMAGES[:, :16, :16]
  expected = pictures.reshape(2, 8, 2, 8, 2, 3).mean((2, 4)).reshape(2, 192) @ weights
  np.testing.assert_allclose(embed(trunk, tmp_path, pictures), expected, rtol=1e-5)


def test_keras_with_a_local_copy_of_its_weights(request, tmp_path):
  """Full size: the really trained Inception v3, or random weights where that is not there."""
  try:
    weights = str(request.getfixturevalue("inception_weights"))
  except pytest.skip.Exception:
    weights = None
  keras.utils.set_random_seed(11)
  full_size = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=weights)
  path = tmp_path / "copy.weights.h5"
  full_size.save_weights(path)
  trunk = load_trunk("keras:InceptionV3", str(path))
  assert (trunk.info.input_px, trunk.info.dimensions) == (299, 2048)
  expected = full_size(_IMAGES * 2.0 - 1.0, training=False).numpy()
  np.testing.assert_allclose(embed(trunk, tmp_path), expected, rtol=1e-3, atol=1e-4)


def test_the_bundled_trunk(tmp_path):
  trunk = load_trunk("bundled")
  assert (trunk.info.input_px, trunk.info.dimensions) == (75, 512)
  assert embed(trunk, tmp_path, _IMAGES[:, :75, :75]).shape == (2, 512)
  assert load_trunk("bundled").info.fingerprint == trunk.info.fingerprint


def test_our_own_folder_and_a_plain_export_are_the_same_trunk(tiny_trunk, tmp_path):
  images = _IMAGES[:, :75, :75]
  loaded = load_saved_model(str(tiny_trunk))
  expected = loaded.embed(tf.constant(images)).numpy()
  np.testing.assert_array_equal(embed(load_trunk(str(tiny_trunk)), tmp_path, images), expected)
  # Only a signature, as older TF Hub modules have it.
  module = tf.Module()
  module.inner = loaded
  serve = tf.function(
    lambda images: {"default": loaded.embed(images), "logits": images[:, 0, 0]},
    input_signature=[tf.TensorSpec([None, 75, 75, 3], tf.float32, name="images")],
  )
  tf.saved_model.save(module, str(tmp_path / "plain"), signatures={"default": serve.get_concrete_function()})
  trunk = load_trunk(str(tmp_path / "plain"))
  assert trunk.info.input_px == 75
  np.testing.assert_allclose(embed(trunk, tmp_path, images), expected, rtol=1e-6)


def test_another_trunk_has_another_fingerprint(tiny_trunk, tmp_path):
  keras.utils.set_random_seed(1)
  inputs = keras.Input((16, 16, 3))
  outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
  keras.Model(inputs, outputs).export(tmp_path / "other", verbose=False)
  other = load_trunk(str(tmp_path / "other"))
  assert (other.info.input_px, other.info.dimensions) == (16, 4)
  assert other.info.fingerprint != load_trunk(str(tiny_trunk)).info.fingerprint


def test_what_is_in_its_folder_is_replaced_since_it_may_be_damaged(tiny_trunk, tmp_path):
  trunk = prepare(load_trunk(str(tiny_trunk)), Variant())
  folder = tmp_path / "trunk"
  trunk.save(str(folder))
  for name in ("saved_model.pb", "prepared/graph.pb"):
    (folder / name).unlink()  # which the cache and other outputs share
    (folder / name).write_bytes(b"damaged")
  trunk.save(str(folder))
  assert load_prepared(str(folder / "prepared")).dimensions == trunk.info.dimensions
  stored = load_stored_trunk(str(folder), trunk.info)
  assert stored.prepared_folder
  stored.save(str(folder))  # into where it lies
  assert embed(stored, tmp_path, _IMAGES[:, :75, :75]).shape == (2, trunk.info.dimensions)


def export(tmp_path: Path, function, *shape) -> str:
  module = tf.Module()
  signature = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32)])
  tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": signature})
  return str(tmp_path)


def test_each_trunk_that_cannot_be_had_is_told(tmp_path, tiny_trunk, inception_weights, monkeypatch):
  monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "empty"))
  (tmp_path / "damaged").mkdir()
  (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"not a graph")
  (tmp_path / "weights.h5").write_bytes(b"not weights")
  (tmp_path / "nothing").mkdir()
  maps = export(tmp_path / "maps", lambda images: {"maps": images * 2}, None, 8, 8, 3)
  text = export(tmp_path / "text", lambda words: {"vector": words * 2}, None, 5)
  cases = [
    (("no_such_trunk",), "is neither a folder nor a TF Hub handle"),
    (("http://localhost:9/nowhere/1",), "cannot be reached .* set TFHUB_CACHE_DIR .*which is https.* --trunk bundled"),
    ((str(tmp_path / "nothing"),), "holds no saved_model.pb"),
    ((str(tmp_path / "damaged"),), "cannot be loaded as a SavedModel"),
    ((maps,), "not one vector each"),
    ((text,), "does not take a batch of images"),
    (("keras:NoSuchNetwork",), "keras.applications has no 'NoSuchNetwork'"),
    (("keras:InceptionV3", str(tmp_path / "gone.h5")), "no such file"),
    (("keras:InceptionV3", str(tmp_path / "weights.h5")), "does not fit InceptionV3 .*: give the .h5 file .*, such as"),
    (("keras:InceptionV3", str(inception_weights), 20), "--trunk_input_px 20 is too small for"),
    (("bundled", "some.h5"), "not for bundled: give --trunk keras:InceptionV3"),
    ((str(tmp_path / "weights.h5"),), "a file of weights, .*: give --trunk keras:InceptionV3 --trunk_weights /"),
    ((str(tiny_trunk), None, 299), "takes 75 x 75 pixels: leave out --trunk_input_px"),
  ]
  for arguments, sentence in cases:
    with pytest.raises(InputError, match=sentence) as raised:
      load_trunk(*arguments)
    assert "\n" not in str(raised.value)


def test_a_stored_trunk_is_there_once_and_each_output_has_its_own_card(bottlenecks_folder, trained_model, tmp_path):
  stored = bottlenecks_folder / "trunk"
  card, info = (stored / "trunk.json").read_bytes(), read_info(str(bottlenecks_folder), "bottlenecks").trunk
  trunk = load_stored_trunk(str(stored), info)
  again = dataclasses.replace(trunk, info=dataclasses.replace(info, handle="given by another name"))
  again.save(str(tmp_path / "trunk"))
  shared = {path.relative_to(stored) for path in stored.rglob("*") if path.is_file()} - {Path("trunk.json")}
  assert len(shared) >= 2
  assert all((stored / path).samefile(tmp_path / "trunk" / path) for path in shared)
  prepared = [path for path in shared if path.parts[0] == "prepared"]
  assert prepared
  assert all((stored / path).samefile(trained_model / "trunk" / path) for path in prepared)
  assert (stored / "trunk.json").read_bytes() == card != (tmp_path / "trunk" / "trunk.json").read_bytes()
  check_trunk(str(stored), info)
