"""Takes variants through all doors, and says where one differs from the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from beam_retrain.transforms.core.images.thumbnails import JPEG_FROM_PX, MAX_ERROR, SIDE_PX
from tools.zoo.doors import Doors, Seen, apart, as_drawn, drawn, read, read_exactly, resized
from tools.zoo.table import REFUSES, SAME, UNBOUNDED, Variant

ROUNDING = 0.01  # grey levels, of float32
PRECISION = 0.1
"""Difference of two scores: the trunk of `predict` computes in another precision than the exported model."""


def check(doors: Doors, variants: Sequence[Variant]) -> dict[str, list[str]]:
  """Returns what is wrong with each variant, by its name."""
  files = [variant.made.data for variant in variants]
  ways = zip(variants, doors.batch(files), doors.exported(files), doors.predict(files), strict=True)
  return {variant.name: list(_check_one(doors, variant, *seen)) for variant, *seen in ways}


def _check_one(doors: Doors, variant: Variant, batch: Seen, exported: Seen, predicted: Seen) -> Iterator[str]:
  data = variant.made.data
  by_pillow = None if variant.pillow == UNBOUNDED else read(data)
  truth = by_pillow if variant.made.truth is None else variant.made.truth
  yield from differences(batch, exported, predicted)
  small = drawn(data)
  if variant.reason is None:
    assert truth is not None, f"nobody says what {variant.name} shows"
    if batch.reason:
      yield f"batch: {batch.reason}, {batch.detail}"
    elif (far := apart(batch.pixels, resized(truth, doors.input_px))) > variant.bound + ROUNDING:
      yield f"batch: pixels differ by {far:.1f}"
    if (far := apart(small, as_drawn(truth))) > variant.bound + _thumbnail_bound(small):
      yield f"thumbnail: pixels differ by {far:.1f}"
  else:
    if batch.reason != variant.reason:
      yield f"batch: {batch.reason or 'shows it'} {batch.detail}, not {variant.reason}"
    if small is not None:
      yield "thumbnail: shows it"
  yield from _check_pillow(variant, by_pillow, truth)
  yield from _check_alone(doors, variant, exported)


def differences(batch: Seen, exported: Seen, predicted: Seen) -> Iterator[str]:
  """Yields what the three doors that use the trunk disagree about: not a bit of pixels, not a word of a reason."""
  for name, other in (("exported", exported), ("predict", predicted)):
    if (other.reason, other.detail) != (batch.reason, batch.detail):
      yield f"{name}: {other.reason or 'shows it'} {other.detail}; batch: {batch.reason or 'shows it'} {batch.detail}"
    elif not other.reason:
      if other.pixels is not None and (far := apart(batch.pixels, other.pixels)):
        yield f"{name}: pixels differ by {far:.2g}"
      if (far := apart(batch.scores, other.scores)) > PRECISION:
        yield f"{name}: scores differ by {far:.2g}"


def _thumbnail_bound(small: np.ndarray | None) -> float:
  """Returns by how many grey levels a thumbnail may differ from what the model was given, made smaller."""
  return 0 if small is None or small[..., 0].size < JPEG_FROM_PX else MAX_ERROR


def _check_pillow(variant: Variant, by_pillow: np.ndarray | None, truth: np.ndarray | None) -> Iterator[str]:
  if variant.pillow == UNBOUNDED:
    return
  if (by_pillow is None) != (variant.pillow == REFUSES):
    yield f"Pillow: {'refuses it' if by_pillow is None else 'shows it'}"
  elif by_pillow is not None and truth is not None and variant.reason is None:
    is_same = apart(by_pillow, truth) <= variant.bound
    if is_same != (variant.pillow == SAME):
      yield f"Pillow: {'shows the same' if is_same else 'shows something else'}"


def _check_alone(doors: Doors, variant: Variant, exported: Seen) -> Iterator[str]:
  if variant.alone == UNBOUNDED:
    return
  alone = doors.alone(variant.made.data)
  if bool(alone.reason) != (variant.alone == REFUSES):
    yield f"the exported model alone: {alone.detail if alone.reason else 'shows it'}"
  elif variant.reason is None and (far := apart(alone.scores, exported.scores)) > PRECISION / 100:
    yield f"the exported model alone: scores differ by {far:.2g}"


def fuzzed_differences(doors: Doors, files: Sequence[bytes]) -> Iterator[tuple[str, list[str]]]:
  """Yields the reason, or "", and what the doors disagree about, of images of which nobody knows what they show."""
  ways = zip(files, doors.batch(files), doors.exported(files), doors.predict(files), strict=True)
  for data, batch, exported, predicted in ways:
    yield batch.reason, [*differences(batch, exported, predicted), *_of_fuzzed(doors, data, batch)]


def _of_fuzzed(doors: Doors, data: bytes, batch: Seen) -> Iterator[str]:
  start, small = repr(data[:3]), drawn(data)
  if " at 0x" in batch.detail:
    yield f"batch: {batch.reason}: its detail has an address in it"
  if batch.reason:
    if small is not None:
      yield f"thumbnail: shows {start}; batch: {batch.reason}"
    return
  assert batch.pixels is not None
  if small is None:
    yield f"thumbnail: refuses {start}"
  elif max(small.shape) < SIDE_PX and (  # not made smaller
    apart(resized(small, doors.input_px), batch.pixels) > _thumbnail_bound(small) + ROUNDING
  ):
    yield f"thumbnail: pixels of {start} differ"
  by_pillow = read_exactly(data)
  if by_pillow is not None and apart(resized(by_pillow, doors.input_px), batch.pixels) > ROUNDING:
    yield f"Pillow: pixels of {start} differ"
