"""Compares an input's image counts with those of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.shards import Shard


class CheckSameImages(beam.PTransform):
  """Counts planned images by split; fails if an earlier ledger differs.

  PCollection[Shard] -> PCollection of one dict, split -> images. Attributes: as of `check_same`.
  """

  def __init__(self, folder: str, inputs: Mapping[str, int]):
    super().__init__()
    self._folder = folder
    self._inputs = dict(inputs)

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    return (
      shards
      | "CountImages" >> beam.Map(_count_images)
      # (split, int)
      | "SumImages" >> beam.CombinePerKey(sum)
      | "CollectCounts" >> beam.combiners.ToDict()
      | "CompareCounts" >> beam.Map(check_same, self._folder, self._inputs)
    )  # dict


def _count_images(shard: Shard) -> tuple[str, int]:
  return shard.split, sum(1 for _ in shard.names())


def check_same(planned: Mapping[str, int], folder: str, inputs: Mapping[str, int]) -> dict[str, int]:
  """Compares planned image counts with an earlier ledger; returns the former.

  Args:
    planned: split -> images.
    folder: output of the earlier run, for the message.
    inputs: split -> images in the earlier ledger.

  Raises:
    InputError: a split has more or fewer images than before.
  """
  for split in sorted({*planned, *inputs}):
    today, then = planned.get(split, 0), inputs.get(split, 0)
    if today != then:
      raise InputError(
        f"the input has {today:,} {split} images, but had {then:,} in the run that wrote {folder}: --retry_from needs"
        f" the same images, some of them repaired. Use --reuse {folder} instead, with the flags of that run."
      )
  return dict(planned)
