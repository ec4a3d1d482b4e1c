"""The head's gradient and its optimizers, beside those of TensorFlow and Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.trainer.fit.head import Adam, GradientDescent, build_head

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


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_steps_are_those_of_keras(name):
  head = build_head(DIMENSIONS, CLASSES, seed=1)
  weights = [head.kernel, head.bias]
  variables = [keras.Variable(weight) for weight in head.get_weights()]
  ours = Adam(weights) if name == "adam" else GradientDescent()
  theirs = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[name](0.01)
  for number in range(20):
    rate = 0.02 if number < 10 else 0.003
    _, gradients = head.differentiate(*batch(number))
    theirs.learning_rate.assign(rate)
    theirs.apply([tf.constant(gradient) for gradient in gradients], variables)
    ours.apply(gradients, weights, rate)
    for found, wanted in zip(weights, variables, strict=True):
      np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-6)


def test_initial_weights_are_small_and_of_the_seed():
  kernel = build_head(500, 20, seed=3).kernel
  assert kernel.dtype == np.float32
  assert 0.0019 < np.abs(kernel).max() <= 0.002
  assert kernel.std() == pytest.approx(0.00088, rel=0.02)  # of a normal one, cut at two deviations
  assert np.array_equal(kernel, build_head(500, 20, seed=3).kernel)
  assert not np.array_equal(kernel, build_head(500, 20, seed=4).kernel)


def test_what_another_optimizer_kept_changes_nothing():
  ours = Adam([np.zeros((DIMENSIONS, CLASSES), np.float32), np.zeros(CLASSES, np.float32)])
  of_keras = keras.optimizers.Adam(0.01)
  of_keras.build([keras.Variable(np.zeros((DIMENSIONS, CLASSES))), keras.Variable(np.zeros(CLASSES))])
  of_keras.iterations.assign(17)
  with pytest.raises(ValueError, match="another optimizer"):
    ours.restore([variable.numpy() for variable in of_keras.variables][: len(ours.variables)])
  assert not any(variable.any() for variable in ours.variables)
