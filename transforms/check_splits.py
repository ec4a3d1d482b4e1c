"""An empty split is an error before the long work starts, not after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam

from transforms import files
from transforms.core.errors import InputError
from transforms.core.example import decode_example
from transforms.core.schema import KEY, LABEL, TESTING, TRAINING, VALIDATION
from transforms.core.shards import IdxRange, ImageFile, Input, RecordsFile, Shard
from transforms.core.splits import SplitPercentages
from transforms.core.tfrecord import read_records
from transforms.idx_source import image_key, read_idx_labels


class CheckSplits(beam.PTransform):
  """PCollection[Shard] -> PCollection of one dict, (split, label) -> images planned; fails where one is missing.

  Keys and labels are all that is looked at: those of files and of IDX ranges are known without their pictures. Records
  are read for them: `convert` makes them from the small pictures of IDX files, so that this takes seconds.

  Attributes:
    labels: the labels that must all be there.
    percentages: how training images are drawn for validation.
  """

  def __init__(self, labels: Sequence[str], percentages: SplitPercentages):
    super().__init__()
    self._labels = list(labels)
    self._percentages = percentages

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    return (
      shards
      | "CountLabels" >> beam.FlatMap(count_labels, self._percentages)
      # ((split, label), int)
      | "SumLabels" >> beam.CombinePerKey(sum)
      | "CollectCounts" >> beam.combiners.ToDict()
      | "CheckCounts" >> beam.Map(check_counts, self._labels, self._percentages)
    )  # dict


def count_labels(shard: Shard, percentages: SplitPercentages) -> Iterator[tuple[tuple[str, str], int]]:
  """Yields ((training, validation or testing; label), 1) for each image of a shard."""
  for entry in shard.inputs:
    for key, label in _keys_and_labels(entry, shard.split):
      yield (percentages.split_of(key, shard.split), label), 1


def _keys_and_labels(entry: Input, split: str) -> Iterator[tuple[str, str]]:
  match entry:
    case ImageFile():
      yield entry.key, entry.label
    case IdxRange():
      for offset, byte in enumerate(read_idx_labels(entry)):
        yield image_key(split, byte, entry.start + offset, "png"), str(byte)
    case RecordsFile():
      with files.open_to_read(entry.path) as file:
        for record in read_records(file, entry.path):
          features = decode_example(record)
          yield features[KEY][0].decode(), features[LABEL][0].decode()


def check_counts(
  counts: Mapping[tuple[str, str], int], labels: Sequence[str], percentages: SplitPercentages
) -> dict[tuple[str, str], int]:
  """Checks that every label has an image in every split.

  Raises:
    InputError: one has none; names the label, the split and the remedy.
  """
  for split in (TRAINING, VALIDATION, TESTING) if percentages.validation else (TRAINING, TESTING):
    missing = [label for label in labels if not counts.get((split, label))]
    if missing:
      shown = ", ".join(repr(label) for label in missing[:5]) + (", ..." if len(missing) > 5 else "")
      raise InputError(
        f"no {split} image of {'class' if len(missing) == 1 else 'classes'} {shown}: add images, remove the class, or"
        " change --testing_percentage and --validation_percentage."
      )
  return dict(counts)
