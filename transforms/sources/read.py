"""Images of any format in one's own pipeline, bad ones apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.arguments import AnyPath
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import ALL, TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.sources.find import find_source


class Separated(NamedTuple):
  """What could be used, and PCollection[Quarantined] of the rest.

  A `Quarantined` has `key`, `reason` (such as `TRUNCATED`), `detail`, a sentence, and `size_bytes`.
  """

  good: beam.PCollection
  bad: beam.PCollection


class SeparateBad(beam.PTransform):
  """Separates bad images from good ones, as their second output.

  PCollection[T | Quarantined] -> `Separated`: (PCollection[T], PCollection[Quarantined]).

      results, bad = images | RunInference(ImageModelHandler("trunk")) | SeparateBad()
  """

  def expand(self, items: beam.PCollection) -> Separated:
    separated = items | "Separate" >> beam.FlatMap(_tag).with_outputs("bad", main="good")
    return Separated(separated.good, separated.bad)


def _tag(item: object) -> Iterable[object]:
  return [beam.pvalue.TaggedOutput("bad", item) if isinstance(item, Quarantined) else item]


class ReadImages(beam.PTransform):
  """Reads labelled images, not decoded, from an input of any format.

  PBegin -> `Separated`: (PCollection[Image], PCollection[Quarantined]). An `Image` has `key`, its stable name, `label`
  and `encoded`, the file's bytes. Only names are planned: the workers read the images.

  Attributes:
    path: what `--input` of `beam-retrain bottlenecks` takes.
    split: `training`, which includes validation images, `testing` or, by default, all. In an input without splits
      `testing_percentage`, 0 to below 100, of the images are for testing, by a stable hash of their keys.

  Raises:
    InputError: the input cannot be used, or has no images of the split.
  """

  def __init__(self, path: AnyPath, split: str | None = None, testing_percentage: float = 10.0):
    super().__init__()
    if split not in (None, TRAINING, TESTING):
      raise InputError(f"{split!r} is no split here: give {TRAINING} or {TESTING}, or leave it out.")
    try:
      percentages = SplitPercentages(float(testing_percentage), validation=0.0)
    except (TypeError, ValueError) as error:
      raise InputError(f"testing_percentage is {testing_percentage!r}: give a number from 0 to below 100.") from error
    source = find_source(path, min_classes=1)
    splits = (split,) if split else (TRAINING, TESTING) if source.has_splits else (ALL,)
    is_drawn = split is not None and not source.has_splits
    self._plan = source.plan(splits, percentages if is_drawn else None)

  def expand(self, root: beam.pvalue.PBegin) -> Separated:
    return (
      root
      | "Plan" >> self._plan
      # Shard
      | "SpreadShards" >> beam.Reshuffle()
      | "Read" >> beam.FlatMap(_read)
      # Image or Quarantined
      | "SeparateBad" >> SeparateBad()
    )


def _read(shard: Shard) -> Iterator[Image | Quarantined]:
  for entry in shard.inputs:
    yield from entry.read(shard.split)
