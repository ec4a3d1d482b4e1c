"""Checks, before any work, the counts of images by split and label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.leaks import LeakedImage
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, VALIDATION
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.records.splits import SplitPercentages


class CheckSplits(beam.PTransform):
  """Counts planned images by split and label; fails without any.

  PCollection[Shard] -> PCollection of one dict, (split, label) -> images. Reads keys and labels only.

  Attributes:
    leaks: PCollection[LeakedImage] that were dropped from the shards, so that the message can name the cause.
  """

  def __init__(self, labels: Sequence[str], percentages: SplitPercentages, leaks: beam.PCollection | None = None):
    super().__init__()
    self._labels = list(labels)
    self._percentages = percentages
    self._leaks = leaks

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    dropped = []
    if self._leaks is not None:
      counted = (
        self._leaks
        | "CountDropped" >> beam.FlatMap(_count_dropped)
        # ((split, label), int)
        | "SumDropped" >> beam.CombinePerKey(sum)
      )
      dropped = [beam.pvalue.AsDict(counted)]
    return (
      shards
      | "CountLabels" >> beam.FlatMap(count_labels, self._percentages)
      # ((split, label), int)
      | "SumLabels" >> beam.CombinePerKey(sum)
      | "CollectCounts" >> beam.combiners.ToDict()
      | "CheckCounts" >> beam.Map(check_counts, self._labels, self._percentages, *dropped)
    )  # dict


def count_labels(shard: Shard, percentages: SplitPercentages) -> Iterator[tuple[tuple[str, str], int]]:
  """Yields ((split, label), 1) for each image of a shard."""
  for key, label in shard.names():
    if label is not None:
      yield (percentages.split_of(key, shard.split), label), 1


def _count_dropped(image: LeakedImage) -> Iterator[tuple[tuple[str, str], int]]:
  if image.is_dropped:
    yield (image.split, image.label), 1


def check_counts(
  counts: Mapping[tuple[str, str], int],
  labels: Sequence[str],
  percentages: SplitPercentages,
  dropped: Mapping[tuple[str, str], int] = MappingProxyType({}),
) -> dict[tuple[str, str], int]:
  """Checks that every split has images of every label; returns `counts`.

  Validation is checked only if `percentages` or the data set asks for validation images.

  Args:
    counts: (split, label) -> images.
    dropped: (split, label) -> images left out by `--on_leak drop`, not in `counts`.

  Raises:
    InputError: a label has no image in a split.
  """
  validated = percentages.validation or any(split == VALIDATION for split, _ in (*counts, *dropped))
  for split in (TRAINING, VALIDATION, TESTING) if validated else (TRAINING, TESTING):
    missing = [label for label in labels if not counts.get((split, label))]
    emptied = [label for label in missing if dropped.get((split, label))]
    if emptied:
      raise InputError(
        f"--on_leak drop leaves no {split} image of {_shown(emptied)}: list the leaks with --on_leak warn and fix them,"
        " add images, or remove the class."
      )
    if missing:
      raise InputError(
        f"no {split} image of {_shown(missing)}: add images, remove the class, or change --testing_percentage and"
        " --validation_percentage."
      )
  return dict(counts)


def _shown(labels: Sequence[str]) -> str:
  shown = ", ".join(repr(label) for label in labels[:5]) + (", ..." if len(labels) > 5 else "")
  return f"{'class' if len(labels) == 1 else 'classes'} {shown}"


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
