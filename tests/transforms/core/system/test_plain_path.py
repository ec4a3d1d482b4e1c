"""What TensorFlow would take for a pattern, or cannot encode, is reached by a plain path."""

from __future__ import annotations

import os
import tempfile

import pytest
import tensorflow as tf

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system import plain_path as module
from beam_retrain.transforms.core.system.plain_path import is_plain, plain_path, plain_root

NAMES = ("a [b]*?\\ c'd\"%41", "new\nline", os.fsdecode(b"caf\xe9"), "plain")


def _model() -> tf.Module:
  made = tf.Module()
  made.scale = tf.Variable([1.0, 2.0])
  made.scaled = tf.function(lambda values: values * made.scale, input_signature=[tf.TensorSpec([2])])
  return made


@pytest.mark.parametrize("name", NAMES)
def test_tensorflow_saves_and_restores_there(tmp_path, name):
  folder = os.path.join(tmp_path, name)
  os.mkdir(folder)
  for target in (os.path.join(folder, "model"), folder):
    os.makedirs(target, exist_ok=True)
    with plain_path(target) as path:
      assert is_plain(path)
      assert (path == target) == (name in ("plain", "new\nline"))
      tf.saved_model.save(_model(), path)
    assert os.path.exists(os.path.join(target, "saved_model.pb"))
    with plain_path(target) as path:
      loaded = tf.saved_model.load(path)
    assert loaded.scaled(tf.constant([3.0, 4.0])).numpy().tolist() == [3.0, 8.0]
    assert not os.path.islink(path)


def test_tensorflow_still_needs_it(tmp_path):
  folder = str(tmp_path / "[a]")
  tf.saved_model.save(_model(), folder)
  with pytest.raises((FileNotFoundError, tf.errors.OpError)):
    tf.saved_model.load(folder)


def test_a_pattern_for_temporary_files_is_avoided_or_refused(tmp_path, monkeypatch):
  (tmp_path / "[t]").mkdir()
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "[t]"))
  assert plain_root() in ("/tmp", "/var/tmp")
  monkeypatch.setattr(module.os, "access", lambda path, mode: False)
  with pytest.raises(InputError, match=r"\[t\] for a pattern: set TMPDIR to a folder without"):
    plain_root()
