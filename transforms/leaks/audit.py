"""Finds equal images with different labels, or in training and testing.

Images are equal if their bytes are. Part of each SHA-256 is shuffled, as the local runner holds that in memory; leaking
images are read once more, for their keys and labels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.images.headers import Fault, probe_image
from beam_retrain.transforms.core.metrics.figures import MODEL
from beam_retrain.transforms.core.metrics.predictions import Row, read_part, row_of
from beam_retrain.transforms.core.printing import print, say
from beam_retrain.transforms.core.records.csv_format import escape_cell, unescape_cell
from beam_retrain.transforms.core.records.example import decode_example
from beam_retrain.transforms.core.records.leaks import (
  HASH_BYTES,
  HashedImage,
  HashedImages,
  Leak,
  LeakedImage,
  OnLeak,
  count_rows,
  describe,
  find_leaks,
  leaks_csv,
  warnings_of,
)
from beam_retrain.transforms.core.records.schema import (
  CLASS_INDEX,
  LEAKS_FILE,
  REFUSED_LEAKS_FILE,
  SHA256,
  Image,
  describe_bottleneck,
  parse_shard_name,
)
from beam_retrain.transforms.core.records.shards import (
  Shard,
  ShardReport,
  bucket_count,
  pack,
  partition_by_hash,
  pick_inputs,
  unpack,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import pick_records, read_records
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.core.system.machine import Threads
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.checks import CheckSplits

OWNED = (LEAKS_FILE, REFUSED_LEAKS_FILE)
"""Files that the audit writes to the stage's folder."""


class Planned(NamedTuple):
  """Audited shards, ready for the work."""

  shards: beam.PCollection  # Shard, without dropped images
  checked: beam.PCollection  # computed once each split is known to have images of each label
  leaks: beam.PCollection | None  # LeakedImage, of all planned images; None: not audited yet


@dataclasses.dataclass(frozen=True)
class SplitAudit:
  on_leak: OnLeak
  labels: Sequence[str]
  percentages: SplitPercentages  # how training images are drawn for validation
  max_pixels: int  # largest height x width that is decoded
  threads: Threads  # of TensorFlow in a process that decodes leaks

  def plan(self, shards: beam.PCollection, leaks_path: str = "") -> Planned:
    """Checks the splits; with `drop` or `fail`, audits the images first.

    `leaks_path` is the CSV for `refuses`, with `fail`; empty: audit the records after the work.
    """
    leaks = None
    if self.on_leak == OnLeak.DROP or (self.on_leak == OnLeak.FAIL and leaks_path):
      audited = shards | "Audit" >> AuditImages(self)
      leaks = audited | "Leaks" >> beam.FlatMapTuple(lambda _, packed: unpack(packed))  # LeakedImage
      if self.on_leak == OnLeak.FAIL:
        _ = leaks | "CollectLeaks" >> beam.combiners.ToList() | "WriteLeaks" >> beam.Map(_write, leaks_path)
      else:
        shards = shards | "DropLeaks" >> beam.Map(drop_leaks, beam.pvalue.AsDict(audited))
    dropped = leaks if self.on_leak == OnLeak.DROP else None
    checked = shards | "CheckSplits" >> CheckSplits(self.labels, self.percentages, dropped)
    return Planned(shards, checked, leaks)

  def audit(self, planned: Planned, reports: beam.PCollection, records_folder: str) -> beam.PCollection:
    """Returns PCollection[LeakedImage] for the ledger; audits the records if necessary."""
    if planned.leaks is not None:
      return planned.leaks
    named = beam.FlatMap(_name_records, records_folder, self.labels, self.percentages)
    return reports | "Audit" >> ("FindLeaks" >> _FindLeaks(_hash_records, records_folder) | "NameRecords" >> named)

  def refuses(self, leaks_path: str) -> bool:
    """Returns whether the leaks written by `plan` end the command; prints why."""
    if self.on_leak != OnLeak.FAIL:
      return False
    if not (sentences := describe(count_rows(files.read_lines(leaks_path)))):
      return False
    print(
      f"beam-retrain: {' and '.join(sentences.values())}: see {files.shown(leaks_path)}; fix them, or exclude them with"
      " --on_leak drop.",
      file=sys.stderr,
    )
    return True

  def report(self, stats: Stats, output: str) -> None:
    """Prints a line for each kind of leak that `stats.json` counts."""
    for line in warnings_of(stats.leaks or {}, files.shown(files.join(output, LEAKS_FILE)), self.on_leak):
      say(line, file=sys.stderr)


def _write(leaks: list[LeakedImage], path: str) -> None:
  files.write_text(path, leaks_csv(leaks))


class AuditImages(beam.PTransform):
  """Finds leaks among planned images: PCollection[Shard] -> PCollection[(shard's name, packed LeakedImages)].

  Unusable images are left for the work to quarantine.
  """

  def __init__(self, audit: SplitAudit):
    super().__init__()
    self._audit = audit

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    leaks = shards | "FindLeaks" >> _FindLeaks(_hash_images, self._audit.labels)  # (shard's name, packed Leaks)
    return (
      shards
      | "PickLeaks" >> beam.FlatMap(_pick_leaks, beam.pvalue.AsDict(leaks))
      # (Shard of the leaks alone, packed Leaks)
      | "SpreadLeaks" >> beam.Reshuffle()
      | "NameImages" >> beam.FlatMap(_name_images, self._audit)
    )  # (shard's name, packed LeakedImages)


class AuditPredictions(beam.PTransform):
  """Finds leaks among scored images: PCollection[ShardReport] -> PCollection[LeakedImage].

  `folder` has the shards' predictions, which name the SHA-256 of each image; no image is read.
  """

  def __init__(self, folder: str, labels: Sequence[str]):
    super().__init__()
    self._arguments = folder, labels

  def expand(self, reports: beam.PCollection) -> beam.PCollection:
    named = beam.FlatMap(_name_predictions, *self._arguments)
    return reports | "FindLeaks" >> _FindLeaks(_hash_predictions, *self._arguments) | "NamePredictions" >> named


def drop_leaks(shard: Shard, audited: Mapping[str, bytes]) -> Shard:
  """Moves the images that `--on_leak drop` excludes to the end, quarantined.

  Other shards keep their digests. `audited` is the output of `AuditImages`.
  """
  packed = audited.get(shard.name())
  dropped = {leak.position: leak for leak in unpack(packed) if leak.is_dropped} if packed else {}
  if not dropped:
    return shard
  kept = pick_inputs(shard.inputs, [number for number, _ in enumerate(shard.names()) if number not in dropped])
  return shard._replace(inputs=(*kept, *(leak.quarantined(shard.split) for _, leak in sorted(dropped.items()))))


class _FindLeaks(beam.PTransform):
  """PCollection of shards -> PCollection[(shard's name, its Leaks by position, packed)].

  `hash_shard`: from an element and `arguments` to (name, split, list of HashedImage).
  """

  def __init__(self, hash_shard: Callable[..., tuple[str, str, list[HashedImage]]], *arguments: Any):
    super().__init__()
    self._hash_shard = hash_shard
    self._arguments = arguments

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    buckets = shards | "CountShards" >> beam.combiners.Count.Globally() | "ChooseBuckets" >> beam.Map(bucket_count)
    return (
      shards
      | "SpreadShards" >> beam.Reshuffle()
      | "HashShard" >> beam.Map(self._hash_shard, *self._arguments)
      | "PartitionByHash" >> beam.FlatMap(_partition, beam.pvalue.AsSingleton(buckets))
      # (bucket, HashedImages)
      | "GroupByHash" >> beam.GroupByKey()
      | "FindInBucket" >> beam.FlatMapTuple(lambda _, images: find_leaks(images))
      # (shard's name, Leaks)
      | "PackLeaks" >> beam.MapTuple(lambda name, leaks: (name, pack(leaks)))
      | "GroupByShard" >> beam.GroupByKey()
      | "JoinBuckets" >> beam.MapTuple(_join)
    )


def _partition(shard: tuple[str, str, list[HashedImage]], buckets: int) -> Iterator[tuple[int, HashedImages]]:
  name, split, hashed = shard
  for bucket, images in partition_by_hash(hashed, buckets).items():
    yield bucket, HashedImages.pack(name, split, images)


def _join(name: str, packed: Iterable[bytes]) -> tuple[str, bytes]:
  return name, pack(sorted(leak for leaks in packed for leak in unpack(leaks)))


def _hash_records(report: ShardReport, folder: str) -> tuple[str, str, list[HashedImage]]:
  path = files.join(folder, report.file)
  hashed = []
  with files.open_to_read(path) as file:
    for position, record in enumerate(read_records(file, path)):
      features = decode_example(record, (SHA256, CLASS_INDEX))
      digest = bytes.fromhex(features[SHA256][0].decode())
      hashed.append((digest[:HASH_BYTES], position, features[CLASS_INDEX][0]))
  return report.file, report.split, hashed


def _name_records(
  leaking: tuple[str, bytes], folder: str, labels: Sequence[str], percentages: SplitPercentages
) -> Iterator[LeakedImage]:
  name, packed = leaking
  leaks = unpack(packed)
  split, *_ = parse_shard_name(name) or ("",)
  path = files.join(folder, name)
  with files.open_to_read(path) as file:
    records = pick_records(file, [leak.position for leak in leaks], path)
    for leak, record in zip(leaks, map(describe_bottleneck, records), strict=True):
      yield leak.named(record.sha256, record.key, percentages.split_of(record.key, split), record.label, labels)


def _read_predictions(folder: str, name: str) -> Iterator[Row]:
  """Yields the first model's predictions; all models score the same images."""
  lines = files.read_lines(files.join(folder, name))
  return (row_of(cells) for model, cells in read_part(lines) if model == MODEL)


def _hash_predictions(report: ShardReport, folder: str, labels: Sequence[str]) -> tuple[str, str, list[HashedImage]]:
  class_indices = {escape_cell(label): index for index, label in enumerate(labels)}
  rows = enumerate(_read_predictions(folder, report.file))
  hashed = [(bytes.fromhex(row.sha256)[:HASH_BYTES], position, class_indices[row.actual]) for position, row in rows]
  return report.file, report.split, hashed


def _name_predictions(leaking: tuple[str, bytes], folder: str, labels: Sequence[str]) -> Iterator[LeakedImage]:
  name, packed = leaking
  leaks = {leak.position: leak for leak in unpack(packed)}
  split, *_ = parse_shard_name(name) or ("",)
  for position, row in enumerate(_read_predictions(folder, name)):
    if leak := leaks.get(position):
      yield leak.named(row.sha256, unescape_cell(row.key), split, unescape_cell(row.actual), labels)


def _hash_images(shard: Shard, labels: Sequence[str]) -> tuple[str, str, list[HashedImage]]:
  class_indices = {label: index for index, label in enumerate(labels)}
  hashed = [
    (hashlib.sha256(image.encoded).digest()[:HASH_BYTES], position, class_indices[image.label])
    for position, image in enumerate(shard.read_images(labels))
    if isinstance(image, Image) and image.encoded
  ]
  return shard.name(), shard.split, hashed


def _pick_leaks(shard: Shard, leaks: Mapping[str, bytes]) -> Iterator[tuple[Shard, bytes]]:
  if packed := leaks.get(shard.name()):
    positions = [leak.position for leak in unpack(packed)]
    yield shard._replace(inputs=pick_inputs(shard.inputs, positions)), packed


def _name_images(picked: tuple[Shard, bytes], audit: SplitAudit) -> Iterator[tuple[str, bytes]]:
  shard, packed = picked
  leaks: Sequence[Leak] = unpack(packed)
  load_tensorflow(audit.threads.here)
  named = []
  for leak, image in zip(leaks, shard.read_images(audit.labels), strict=True):
    # Changed or deleted meanwhile, or unusable: the work reports it.
    if not isinstance(image, Image) or not bytes.fromhex(image.sha256).startswith(leak.digest):
      continue
    if _is_sound(image.encoded, audit.max_pixels):
      split = audit.percentages.split_of(image.key, shard.split)
      leaked = leak.named(image.sha256, image.key, split, image.label, audit.labels)
      named.append(leaked._replace(size_bytes=len(image.encoded)))
  if named:
    yield shard.name(), pack(named)


def _is_sound(encoded: bytes, max_pixels: int) -> bool:
  """Returns whether the work would accept an image."""
  info = probe_image(encoded, max_pixels)
  if isinstance(info, Fault):
    return False
  import tensorflow as tf

  from beam_retrain.transforms.core.images.decode import decode_rgb

  try:
    decode_rgb(tf.constant(info.cut or encoded))
  except tf.errors.OpError:
    return False
  return True
