"""An empty split is an error before the long work starts, not after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam

from transforms.core.errors import InputError
from transforms.core.schema import TESTING, TRAINING, VALIDATION
from transforms.core.shards import IdxRange, ImageFile, Shard
from transforms.core.splits import SplitPercentages
from transforms.idx_source import image_key, read_idx_labels


class CheckSplits(beam.PTransform):
  """PCollection[Shard] -> PCollection of one dict, (split, label) -> images planned; fails where one is missing.

  Only keys and labels are read. Shards of records are not looked into: their labels are counted in the `stats.json`
  beside them, and what of them is for validation is checked when the head is trained.

  Attributes:
    labels: the labels that must all be there.
    percentages: how training images are drawn for validation.
    known: split -> label -> images, of inputs that are not counted here.
  """

  def __init__(
    self,
    labels: Sequence[str],
    percentages: SplitPercentages,
    known: Mapping[str, Mapping[str, int]] | None = None,
  ):
    super().__init__()
    self._labels = list(labels)
    self._percentages = percentages
    self._known = known

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    return (
      shards
      | "CountLabels" >> beam.FlatMap(count_labels, self._percentages)
      # ((split, label), int)
      | "SumLabels" >> beam.CombinePerKey(sum)
      | "CollectCounts" >> beam.combiners.ToDict()
      | "CheckCounts" >> beam.Map(check_counts, self._labels, self._percentages, self._known)
    )  # dict


def count_labels(shard: Shard, percentages: SplitPercentages) -> Iterator[tuple[tuple[str, str], int]]:
  """Yields ((training, validation or testing; label), images) of a shard."""
  for entry in shard.inputs:
    match entry:
      case ImageFile():
        yield (percentages.split_of(entry.key, shard.split), entry.label), 1
      case IdxRange():
        for offset, byte in enumerate(read_idx_labels(entry)):
          key = image_key(shard.split, byte, entry.start + offset, "png")
          yield (percentages.split_of(key, shard.split), str(byte)), 1


def check_counts(
  counts: Mapping[tuple[str, str], int],
  labels: Sequence[str],
  percentages: SplitPercentages,
  known: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[tuple[str, str], int]:
  """Checks that every label has an image in every split.

  Raises:
    InputError: one has none; names the label, the split and the remedy.
  """
  if known is not None:
    counts = {(split, label): count for split, totals in known.items() for label, count in totals.items()}
  needed = [TRAINING, TESTING]
  if percentages.validation and known is None:
    needed.insert(1, VALIDATION)
  for split in needed:
    missing = [label for label in labels if not counts.get((split, label))]
    if missing:
      shown = ", ".join(repr(label) for label in missing[:5]) + (", ..." if len(missing) > 5 else "")
      raise InputError(
        f"no {split} image of {'class' if len(missing) == 1 else 'classes'} {shown}: add images, remove the class, or"
        " change --testing_percentage and --validation_percentage."
      )
  return dict(counts)
