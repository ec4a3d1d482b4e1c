"""Checks, before any work, the counts of images by split and label."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.headers import find_fault
from beam_retrain.transforms.core.records.leaks import LeakedImage
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, VALIDATION
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.records.splits import SplitPercentages

_PROBED_SHARDS, _PROBED_IMAGES = 3, 1000
_SPLITS = (TRAINING, VALIDATION, TESTING)
_ENOUGH = 50  # with a tenth for each of two splits, 1 in 100 such classes lacks one


class CheckSplits(beam.PTransform):
  """Counts planned images by split and label; fails without any.

  PCollection[Shard] -> PCollection of one dict, (split, label) -> images. Reads keys and labels only, and for an
  error message some images. `leaks`, a PCollection[LeakedImage], were dropped from the shards.
  """

  def __init__(self, labels: Sequence[str], percentages: SplitPercentages, leaks: beam.PCollection | None = None):
    super().__init__()
    self._labels = list(labels)
    self._percentages = percentages
    self._leaks = leaks

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    first = shards | "TakeFirst" >> beam.combiners.Top.Of(_PROBED_SHARDS, key=Shard.name, reverse=True)
    side_inputs = [beam.pvalue.AsSingleton(first)]
    if self._leaks is not None:
      counted = self._leaks | "CountDropped" >> beam.FlatMap(_count_dropped) | "SumDropped" >> beam.CombinePerKey(sum)
      side_inputs.append(beam.pvalue.AsDict(counted))
    return (
      shards
      | "CountLabels" >> beam.FlatMap(count_labels, self._percentages)
      # ((split, label), int)
      | "SumLabels" >> beam.CombinePerKey(sum)
      | "CollectCounts" >> beam.combiners.ToDict()
      | "CheckCounts" >> beam.Map(check_counts, self._labels, self._percentages, *side_inputs)
    )  # dict


def count_labels(shard: Shard, percentages: SplitPercentages) -> Iterable[tuple[tuple[str, str], int]]:
  """Returns ((split, label), images) of a shard."""
  return Counter(
    (percentages.split_of(key, shard.split), label) for key, label in shard.names() if label is not None
  ).items()


def _count_dropped(image: LeakedImage) -> Iterator[tuple[tuple[str, str], int]]:
  if image.is_dropped:
    yield (image.split, image.label), 1


def check_counts(
  counts: Mapping[tuple[str, str], int],
  labels: Sequence[str],
  percentages: SplitPercentages,
  shards: Sequence[Shard] = (),
  dropped: Mapping[tuple[str, str], int] | None = None,
) -> dict[tuple[str, str], int]:
  """Returns `counts`, (split, label) -> images; raises InputError if one is missing.

  Validation is checked only if `percentages` or the data set asks for validation images. `dropped` has those left out
  by `--on_leak drop`; `shards` are some of those counted.
  """
  dropped = dropped or {}
  validated = percentages.validation or any(split == VALIDATION for split, _ in (*counts, *dropped))
  for split in _SPLITS if validated else (TRAINING, TESTING):
    missing = [label for label in labels if not counts.get((split, label))]
    emptied = [label for label in missing if dropped.get((split, label))]
    if emptied:
      raise InputError(
        f"--on_leak drop leaves no {split} image of {_shown(emptied)}: list the leaks with --on_leak warn and fix them,"
        " add images, or remove the class."
      )
    if missing:
      _check_any_usable(shards, labels)
      most = max(sum(counts.get((each, label), 0) for each in _SPLITS) for label in missing)
      change = ", or change --testing_percentage and --validation_percentage" if most >= len(_SPLITS) else ""
      if split == TESTING and 0 < percentages.testing < 1:
        change += f" (--testing_percentage {percentages.testing:g} is less than one image in a hundred)"
      raise InputError(
        f"no {split} image of {_shown(missing)}: add images, of which {_ENOUGH} in a class are enough as a rule, or"
        f" remove the class{change}."
      )
  return dict(counts)


def _check_any_usable(shards: Sequence[Shard], labels: Sequence[str]) -> None:
  """Raises InputError if all images of some shards are bad."""
  images = itertools.chain.from_iterable(shard.read_images(labels) for shard in shards)
  count, example = 0, ""
  for image in itertools.islice(images, _PROBED_IMAGES):
    fault = image if isinstance(image, Quarantined) else find_fault(image.encoded)
    if not fault:
      return
    count, example = count + 1, example or f"{image.key} ({fault.detail})"
  if count:
    raise InputError(
      f"none of {count:,} images can be used, such as {example}: give JPEG, PNG, BMP, GIF or WebP files."
    )


def _shown(labels: Sequence[str]) -> str:
  shown = ", ".join(repr(label) for label in labels[:5]) + (", ..." if len(labels) > 5 else "")
  return f"{'class' if len(labels) == 1 else 'classes'} {shown}"


def check_same(planned: Mapping[str, int], folder: str, inputs: Mapping[str, int]) -> dict[str, int]:
  """Returns `planned`, split -> images; raises InputError if `inputs` differ.

  `inputs` are those of the earlier ledger in `folder`.
  """
  for split in sorted({*planned, *inputs}):
    today, then = planned.get(split, 0), inputs.get(split, 0)
    if today != then:
      raise InputError(
        f"the input has {today:,} {split} images, but had {then:,} in the run that wrote {folder}: --retry_from needs"
        f" the same images, some of them repaired. Use --reuse {folder} instead, with the flags of that run."
      )
  return dict(planned)
