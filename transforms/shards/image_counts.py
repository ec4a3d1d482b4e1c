"""Checks that an input has as many images as an earlier run found."""

from __future__ import annotations

from collections.abc import Mapping

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.shards import Shard


class CheckSameImages(beam.PTransform):
  """PCollection[Shard] -> PCollection of one dict, split -> images planned; fails where a ledger has others.

  Attributes:
    folder: the earlier run's, for the message.
    inputs: split -> images, of its ledger.
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
  """Compares planned image counts with an earlier ledger; returns them.

  Args:
    planned: split -> images.
    folder: the earlier run's.
    inputs: split -> images, of its ledger.

  Raises:
    InputError: a split has more or fewer images today; says what to do.
  """
  for split in sorted({*planned, *inputs}):
    today, then = planned.get(split, 0), inputs.get(split, 0)
    if today != then:
      raise InputError(
        f"there are {today:,} {split} images today, there were {then:,} in the run that wrote {folder}: --retry_from"
        f" is for the same images, some of them repaired. Give --reuse {folder} instead, and the flags of that run."
      )
  return dict(planned)
