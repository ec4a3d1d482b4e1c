"""The names of `tensorflow.python` that are leaned on are there, and have no public counterpart yet."""

from __future__ import annotations

import pytest
import tensorflow as tf

from beam_retrain.transforms.core.system import tensorflow_internals

_PUBLIC = (tf, tf.graph_util, tf.saved_model, tf.saved_model.experimental, tf.experimental, tf.function, tf.autograph)


@pytest.mark.parametrize("name", [*tensorflow_internals.__all__, "OptimizeGraph"])
def test_a_name_is_there_and_is_not_public(name):
  assert name == "OptimizeGraph" or callable(getattr(tensorflow_internals, name))
  assert not [module for module in _PUBLIC if hasattr(module, name)], "use the public one"


def test_the_version_that_they_were_looked_up_in_is_the_one_that_setup_asks_for():
  assert tf.__version__.startswith("2.21."), "look whether each is still needed, and mend the module's docstring"
