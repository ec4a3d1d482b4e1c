"""Makes the weights of the bundled trunk from nothing: fetch fonts, draw glyphs, train, choose, write.

  python -m tools.bundled_trunk.task --fonts_dir /tmp/fonts --work_dir /tmp/bundled --output weights.npz

needs npm (the fonts), scipy and scikit-learn. Started again with the same flags, a run that was killed goes on from
its last check. No digit of MNIST is used, neither to train nor to choose.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import shutil
import time

import keras
import numpy as np
import tensorflow as tf

from beam_retrain.transforms.core.models import inception
from tools.bundled_trunk import fonts, glyphs, mixture, probes, warps

HELD_OUT_IMAGES = 4096
_HELD_OUT_SEED = (1, 1)
_AVERAGE_DECAY = 0.999


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m tools.bundled_trunk.task",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  folder = pathlib.Path
  parser.add_argument("--fonts_dir", type=folder, required=True, help="where npm puts the fonts; kept between runs")
  parser.add_argument("--work_dir", type=folder, required=True, help="glyphs, checkpoints, checks.csv, candidates")
  parser.add_argument("--output", type=folder, required=True, help="the weights.npz to write, float16")
  parser.add_argument("--steps", type=int, default=9_000, help="training steps (default %(default)s)")
  parser.add_argument("--batch_size", type=int, default=128, help="images a step (default %(default)s)")
  parser.add_argument("--learning_rate", type=float, default=2e-3, help="at its highest (default %(default)s)")
  parser.add_argument("--check_every", type=int, default=750, help="steps between checks (default %(default)s)")
  parser.add_argument("--seed", type=int, default=20, help="of everything drawn at random (default %(default)s)")
  return parser.parse_args(argv)


class Learner:
  """The trunk with the classifier that teaches it, a running average of both, and the optimiser's state."""

  def __init__(self, steps: int, learning_rate: float):
    self.trunk, self.model = _with_classifier()
    self.averaged_trunk, self.averaged_model = _with_classifier()
    self.averaged_model.set_weights(self.model.get_weights())
    warmup = max(1, min(500, steps // 10))
    self.optimizer = keras.optimizers.AdamW(
      keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=learning_rate, warmup_steps=warmup
      ),
      weight_decay=0.03,
      global_clipnorm=2.0,
    )
    self.optimizer.exclude_from_weight_decay(var_names=["beta", "bias"])
    self.optimizer.build(self.model.trainable_variables)
    self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
    self.best_score = tf.Variable(0.0, trainable=False)

  @tf.function
  def learn(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """One step on float32 [N, 28, 28] in 0..1 and int32 [N]; the loss, before it."""
    inputs = warps.trunk_input(images, inception.BUNDLED_INPUT_PX)
    with tf.GradientTape() as tape:
      loss = kind_loss(self.model(inputs, training=True), labels)
    variables = self.model.trainable_variables
    self.optimizer.apply(tape.gradient(loss, variables), variables)
    done = tf.cast(self.step.assign_add(1), tf.float32)
    change = 1.0 - tf.minimum(_AVERAGE_DECAY, done / (done + 10.0))  # young averages forget faster
    for average, variable in zip(self.averaged_model.variables, self.model.variables, strict=True):
      if variable.dtype == "float32":  # not the dropout's seed
        average.assign_add(change * (variable - average))
    return loss


def _with_classifier() -> tuple[keras.Model, keras.Model]:
  trunk = inception.build_inception_v3(inception.BUNDLED_WIDTH, inception.BUNDLED_INPUT_PX)
  x = keras.layers.Dropout(0.3, seed=1)(trunk.output)
  return trunk, keras.Model(trunk.input, keras.layers.Dense(len(glyphs.CLASSES), name="classes")(x))


def kind_loss(logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.05) -> tf.Tensor:
  """Mean cross-entropy in which a digit competes with digits only, and a letter with letters.

  An O and a 0 framed alike are one image: no trunk can tell them apart, and one that tried would learn to know the
  source (only digits are pen-drawn) instead of the shape.
  """
  losses = []
  for first, last in ((0, glyphs.DIGITS), (glyphs.DIGITS, len(glyphs.CLASSES))):
    inside = (labels >= first) & (labels < last)
    targets = tf.one_hot(labels - first, last - first)
    targets = targets * (1 - smoothing) + smoothing / (last - first)
    loss = tf.nn.softmax_cross_entropy_with_logits(targets, logits[:, first:last])
    losses.append(tf.where(inside, loss, 0.0))
  return tf.reduce_mean(tf.add_n(losses))


class Judge:
  """Scores an averaged model on what it has not been trained on."""

  def __init__(self, held_out: glyphs.Bank):
    shares = {(mixture.HELD_OUT, "digits"): 0.6, (mixture.HELD_OUT, "letters"): 0.4}
    mix = mixture.Mixture({mixture.HELD_OUT: held_out}, shares)
    images, labels = mix.batch(tf.constant(_HELD_OUT_SEED), HELD_OUT_IMAGES)
    self.images, self.labels = images.numpy(), labels.numpy()
    self.digit_images, self.digit_labels = probes.scikit_digits()

  def score(self, learner: Learner) -> dict[str, float]:
    """Parts in 0..1; `score`, the mean of the two that count, is what versions are chosen by."""
    logits = probes.vectors(learner.averaged_model, self.images)
    font_digits, font_letters = probes.group_accuracy(logits, self.labels)
    as_they_are, _ = probes.group_accuracy(probes.vectors(learner.averaged_model, self.digit_images), self.digit_labels)
    features = probes.vectors(learner.averaged_trunk, self.digit_images)
    few_shot = probes.few_shot_accuracy(features, self.digit_labels)
    return {
      "font_digits": font_digits,
      "font_letters": font_letters,
      "scikit_as_they_are": as_they_are,
      "scikit_few_shot": few_shot,
      "score": (font_digits + few_shot) / 2,
    }


def train(arguments: argparse.Namespace, banks: dict[str, glyphs.Bank]) -> pathlib.Path:
  """Trains to the end, from the last check if there is one; returns the best candidate's file."""
  work_dir = arguments.work_dir
  best_path = work_dir / "best.npz"
  learner, judge = Learner(arguments.steps, arguments.learning_rate), Judge(banks[mixture.HELD_OUT])
  checkpoint = tf.train.Checkpoint(
    model=learner.model,
    averaged=learner.averaged_model,
    optimizer=learner.optimizer,
    step=learner.step,
    best_score=learner.best_score,
  )
  manager = tf.train.CheckpointManager(checkpoint, str(work_dir / "checkpoints"), max_to_keep=1)
  if manager.latest_checkpoint:
    checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
  first = int(learner.step)
  print(f"training from step {first} to {arguments.steps}", flush=True)
  batches = mixture.training_batches(
    mixture.Mixture(banks), arguments.seed, range(first, arguments.steps), arguments.batch_size
  )
  losses, since = [], time.monotonic()
  for step, (images, labels) in enumerate(batches, start=first + 1):
    losses.append(learner.learn(images, labels))
    if step % 100 == 0:
      rate = len(losses) / (time.monotonic() - since)
      print(f"step {step} loss {np.mean(losses):.4f} {rate:.2f} steps/s", flush=True)
      losses, since = [], time.monotonic()
    if step % arguments.check_every == 0 or step == arguments.steps:
      scores = judge.score(learner)
      _log(work_dir / "checks.csv", {"step": step, **scores})
      save_weights(learner.averaged_trunk, work_dir / "latest.npz")
      if scores["score"] > float(learner.best_score):
        learner.best_score.assign(scores["score"])
        shutil.copyfile(work_dir / "latest.npz", best_path)
      manager.save()
      losses, since = [], time.monotonic()
  return best_path


def save_weights(model: keras.Model, path: pathlib.Path) -> None:
  """Writes every variable as float16 under its path, for `inception.load_weights`."""
  arrays = {each.path: np.asarray(each).astype(np.float16) for each in model.variables}
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise ValueError(f"{name} has values that float16 cannot hold: the weights are not saved.")
  with open(path, "wb") as file:
    np.savez_compressed(file, **arrays)


def _log(path: pathlib.Path, row: dict[str, float]) -> None:
  print("check", {name: round(value, 4) for name, value in row.items()}, flush=True)
  is_new = not path.exists()
  with open(path, "a", newline="") as file:
    writer = csv.DictWriter(file, row.keys())
    if is_new:
      writer.writeheader()
    writer.writerow(row)


def run(arguments: argparse.Namespace) -> None:
  keras.utils.set_random_seed(arguments.seed)
  arguments.work_dir.mkdir(parents=True, exist_ok=True)
  fonts.fetch_fonts(arguments.fonts_dir)
  banks = mixture.draw_banks(arguments.fonts_dir, arguments.work_dir, arguments.seed)
  print({name: len(bank) for name, bank in banks.items()}, flush=True)
  arguments.output.parent.mkdir(parents=True, exist_ok=True)
  shutil.copyfile(train(arguments, banks), arguments.output)
  print(f"wrote {arguments.output}")


if __name__ == "__main__":
  run(parse())
