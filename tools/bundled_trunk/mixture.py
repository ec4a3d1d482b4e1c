"""Which glyph is drawn when: sources and classes mixed by fixed shares, each batch a pure function of its step."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tools.bundled_trunk import fonts, glyphs, pens, warps

# What part of all images comes from where. Handwriting is what the trunk will be judged by, so the pen comes first.
SHARES = {
  ("pens", "digits"): 0.40,
  ("handwriting", "digits"): 0.18,
  ("print", "digits"): 0.12,
  ("handwriting", "letters"): 0.20,
  ("print", "letters"): 0.10,
}
PEN_DIGITS = 80_000
HELD_OUT = "held_out"


def draw_banks(fonts_dir: pathlib.Path, work_dir: pathlib.Path, seed: int) -> dict[str, glyphs.Bank]:
  """The sources of SHARES, and the held-out fonts; each drawn once and kept in `work_dir`."""
  faces = fonts.find_fonts(fonts_dir)
  groups = {
    "handwriting": [face.path for face in faces if face.is_handwriting and not face.is_held_out],
    "print": [face.path for face in faces if not face.is_handwriting and not face.is_held_out],
    HELD_OUT: [face.path for face in faces if face.is_held_out],
  }
  banks = {}
  for name in ("pens", *groups):
    path = work_dir / f"{name}.npz"
    if not path.exists():
      print(f"drawing {name}", flush=True)
      bank = pens.draw_digits(PEN_DIGITS, seed) if name == "pens" else glyphs.draw_fonts(groups[name])
      bank.save(path)
    banks[name] = glyphs.Bank.load(path)
  return banks


class Mixture:
  """Draws (glyph, label) by SHARES: first the source and the class, then one of its glyphs, all equally likely."""

  def __init__(self, banks: dict[str, glyphs.Bank], shares: dict[tuple[str, str], float] = SHARES):
    kinds = {"digits": range(glyphs.DIGITS), "letters": range(glyphs.DIGITS, len(glyphs.CLASSES))}
    rows, cells = [], []  # a cell: one class of one source
    taken = 0
    for (source, kind), share in shares.items():
      bank = banks[source]
      members = [np.flatnonzero(bank.labels == label) for label in kinds[kind]]
      present = sum(1 for each in members if len(each))
      if not present:
        raise ValueError(f"The source {source} has no {kind}: draw some, or give it no share.")
      for each in members:
        if len(each):
          cells.append((share / present, taken, len(each)))
          taken += len(each)
          rows.append((bank, each))
    chances, starts, sizes = zip(*cells, strict=True)
    self.log_chances = tf.constant([np.log(chances)], tf.float32)
    self.starts, self.sizes = tf.constant(starts, tf.int32), tf.constant(sizes, tf.int32)
    self.fields = tf.constant(np.concatenate([bank.fields[each] for bank, each in rows]))
    self.half_widths = tf.constant(np.concatenate([bank.half_widths[each] for bank, each in rows]))
    self.labels = tf.constant(np.concatenate([bank.labels[each] for bank, each in rows]))

  def batch(self, seed: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Images float32 [size, 28, 28] in 0..1 and labels int32 [size]; `seed` int32 [2] settles every one."""
    which, where, how = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    cell = tf.random.stateless_categorical(self.log_chances, size, which, tf.int32)[0]
    share = tf.random.stateless_uniform([size], where)
    within = tf.cast(share * tf.cast(tf.gather(self.sizes, cell), tf.float32), tf.int32)
    index = tf.gather(self.starts, cell) + tf.minimum(within, tf.gather(self.sizes, cell) - 1)
    fields, half_widths = tf.gather(self.fields, index), tf.gather(self.half_widths, index)
    return warps.warp(fields, half_widths, how), tf.gather(self.labels, index)


def training_batches(mixture: Mixture, seed: int, steps: Sequence[int], batch_size: int) -> tf.data.Dataset:
  """(images, labels) for each of `steps`, made while the step before is trained on."""

  def make(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return mixture.batch(tf.stack([seed, tf.cast(step, tf.int32)]), batch_size)

  numbers = tf.data.Dataset.range(steps[0], steps[-1] + 1) if len(steps) else tf.data.Dataset.range(0)
  return numbers.map(make, num_parallel_calls=1).prefetch(4)
