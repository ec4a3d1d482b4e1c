"""Finds label errors and near-duplicates among stored bottlenecks, in one process.

The records are read three times: for a sample, for the components of each image, and for the names of what was found.
Memory takes 0.6 KB an image, and 200 MB for the sample of 2,048 numbers each.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beam_retrain.transforms.core.corrections import Correcting
from beam_retrain.transforms.core.metrics.label_errors import Components, Judged, judge
from beam_retrain.transforms.core.metrics.predictions import MAX_SUSPICIOUS, LabelError
from beam_retrain.transforms.core.records.csv_format import escape_cell
from beam_retrain.transforms.core.records.leaks import LeakedImage, near_kinds_of
from beam_retrain.transforms.core.records.schema import Bottleneck, decode_bottleneck, describe_bottleneck
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.records.tfrecord import pick_records, read_records
from beam_retrain.transforms.core.records.trained_on import starts_of
from beam_retrain.transforms.core.system.prefetch import batched
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.records import RecordsFile

MAX_ALIKE = 2_000
"""Near-duplicates that are listed."""
_SAMPLE = 8192
_BATCH = 1024
_LARGEST = 1e15


class LabelErrors(NamedTuple):
  """Likely wrong labels by key, as in the CSVs, and near-duplicates."""

  labels: Mapping[str, LabelError]
  alike: Sequence[LeakedImage]


NO_LABEL_ERRORS = LabelErrors({}, ())


class RecordFile(NamedTuple):
  """A file of bottleneck records, and their split."""

  path: str
  split: str


@dataclasses.dataclass(frozen=True)
class Table:
  """What is held of the images: their components, classes and places."""

  components: np.ndarray
  classes: np.ndarray
  images: np.ndarray
  places: np.ndarray  # int64 [N, 2]: of the file, and of the record in it


def find_label_errors(shards: list[Shard], labels: Sequence[str], corrections: Correcting | None = None) -> LabelErrors:
  """Judges the labels of stored bottlenecks.

  `labels` is the label list. Of several record files of a shard, one per trunk, the first is read.
  """
  records = [
    RecordFile(shard.inputs[0].path, shard.split)
    for shard in sorted(shards, key=Shard.name)
    if shard.inputs and isinstance(shard.inputs[0], RecordsFile)
  ]
  if (table := read_table(records, labels, corrections)) is None:
    return NO_LABEL_ERRORS
  judged = judge(table.components, table.classes, table.images)
  wrong, alike = judged.rows[:MAX_SUSPICIOUS], judged.alike[:MAX_ALIKE]
  named = _name(records, table.places, np.unique(np.concatenate([wrong, alike, judged.nearest[alike]])), corrections)
  errors: Mapping[str, LabelError] = {
    escape_cell(named[row][1].key): LabelError(
      rank, float(judged.confidence[row]), labels[judged.suggested[row]], float(judged.agreeing[row])
    )
    for rank, row in enumerate(wrong.tolist(), 1)
  }
  return LabelErrors(errors, list(_pair(alike.tolist(), judged, named)))


def _pair(rows: Sequence[int], judged: Judged, named: Mapping[int, tuple[str, Bottleneck]]) -> Iterator[LeakedImage]:
  for row in rows:
    (split, one), (of_other, other) = named[row], named[int(judged.nearest[row])]
    kinds, labels = near_kinds_of({one.label, other.label}, {split, of_other}), tuple(sorted({one.label, other.label}))
    near = LeakedImage(one.sha256, one.key, split, one.label, kinds, labels)
    yield near._replace(like=other.key, like_sha256=other.sha256, cosine=float(judged.cosine[row]))


def read_table(
  records: Sequence[RecordFile], labels: Sequence[str], corrections: Correcting | None = None
) -> Table | None:
  """Reads all records; None if there are too few to compare."""
  sample, every = [], 1
  for count, (_, _, record) in enumerate(_read(records)):
    if count % every == 0:
      vector = decode_bottleneck(record).vector
      sample += [vector] if _is_usable(vector) else []
      if len(sample) == _SAMPLE:
        sample, every = sample[::2], 2 * every
  if len(sample) < 2:
    return None
  components = Components(np.stack(sample))
  del sample
  class_indices = {label: index for index, label in enumerate(labels)}
  rows: list[np.ndarray] = []
  classes: list[int] = []
  images: list[np.ndarray] = []
  places: list[tuple[int, int]] = []
  for batch in batched(_read(records), _BATCH):
    decoded = [(file, number, _corrected(decode_bottleneck(record), corrections)) for file, number, record in batch]
    decoded = [one for one in decoded if one[2].label in class_indices and _is_usable(one[2].vector)]
    if not decoded:
      continue
    rows.append(components.project(np.stack([one.vector for _, _, one in decoded])))
    classes += [class_indices[one.label] for _, _, one in decoded]
    images.append(starts_of([one.sha256 or hashlib.sha256(one.key.encode()).hexdigest() for _, _, one in decoded]))
    places += [(file, number) for file, number, _ in decoded]
  if not rows:
    return None
  return Table(np.concatenate(rows), np.array(classes), np.concatenate(images), np.array(places))


def _is_usable(vector: np.ndarray) -> bool:
  """Whether its numbers are finite, and their squares too."""
  return bool(np.abs(vector).max(initial=0) < _LARGEST)


def _read(records: Sequence[RecordFile]) -> Iterator[tuple[int, int, bytes]]:
  """Yields (number of the file, number in it, record)."""
  for place, (path, _) in enumerate(records):
    with files.open_to_read(path) as file:
      for number, record in enumerate(read_records(file, path)):
        yield place, number, record


def _corrected(one: Bottleneck, corrections: Correcting | None) -> Bottleneck:
  """Returns a bottleneck with its label now; empty: no class."""
  if not corrections or not one.sha256:
    return one
  return dataclasses.replace(one, label=corrections.begun().label_of(one.key, one.label, one.sha256) or "")


def _name(
  records: Sequence[RecordFile], places: np.ndarray, rows: np.ndarray, corrections: Correcting | None = None
) -> dict[int, tuple[str, Bottleneck]]:
  """Returns row -> (split, image without its vector)."""
  named: dict[int, tuple[str, Bottleneck]] = {}
  of_file = places[rows, 0]
  for place in np.unique(of_file).tolist():
    path, split = records[place]
    chosen = rows[of_file == place]
    with files.open_to_read(path) as file:
      described = map(describe_bottleneck, pick_records(file, places[chosen, 1].tolist(), path))
      picked = (_corrected(one, corrections) for one in described)
      named |= {row: (split, one) for row, one in zip(chosen.tolist(), picked, strict=True)}
  return named
