"""The head's gradient and its steps, beside those of TensorFlow and Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.trainer.fit.checkpoint import TrainingState
from beam_retrain.trainer.fit.data import Bottlenecks
from beam_retrain.trainer.fit.head import build_head

DIMENSIONS, CLASSES = 7, 4


def batch(number: int) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(number)
  return rng.normal(size=(30, DIMENSIONS)).astype(np.float32), rng.integers(CLASSES, size=30).astype(np.int32)


def test_the_gradient_is_that_of_the_mean_cross_entropy():
  head = build_head(DIMENSIONS, CLASSES, seed=1)
  head.set_weights([head.kernel * 900, head.bias + np.float32([1, -1, 0.5, 2])])
  vectors, classes = batch(0)
  kernel, bias = (tf.Variable(weight) for weight in head.get_weights())
  with tf.GradientTape() as tape:
    logits = vectors @ kernel + bias
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
    loss = tf.reduce_mean(losses)
  expected = [gradient.numpy() for gradient in tape.gradient(loss, [kernel, bias])]
  score, gradients = head.differentiate(vectors, classes)
  for found, wanted in zip(gradients, expected, strict=True):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
  assert score.total_loss == pytest.approx(float(tf.reduce_sum(losses)), rel=1e-5)
  assert score.correct == np.count_nonzero(logits.numpy().argmax(axis=1) == classes)
  assert head.score(vectors, classes) == score


def test_the_steps_are_those_of_keras():
  nothing = np.empty((0, DIMENSIONS), np.float32)
  state = TrainingState(Bottlenecks(nothing, np.empty(0, np.int32), {}, ["a", "b", "c", "d"], ""), seed=1)
  variables = [keras.Variable(weight) for weight in state.head.get_weights()]
  theirs = keras.optimizers.SGD(0.01)
  for number in range(20):
    rate = 0.02 if number < 10 else 0.003
    _, gradients = state.head.differentiate(*batch(number))
    theirs.learning_rate.assign(rate)
    theirs.apply([tf.constant(gradient) for gradient in gradients], variables)
    state.take_step(*batch(number), rate)
    for found, wanted in zip(state.head.get_weights(), variables, strict=True):
      np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-6)


def test_initial_weights_are_small_and_of_the_seed():
  kernel = build_head(500, 20, seed=3).kernel
  assert kernel.dtype == np.float32
  assert 0.0019 < np.abs(kernel).max() <= 0.002
  assert kernel.std() == pytest.approx(0.00088, rel=0.02)  # of a normal one, cut at two deviations
  assert np.array_equal(kernel, build_head(500, 20, seed=3).kernel)
  assert not np.array_equal(kernel, build_head(500, 20, seed=4).kernel)
