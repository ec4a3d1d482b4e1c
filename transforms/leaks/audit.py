"""Finds equal images with different labels, or in both training and testing.

Images are equal if their bytes are. The local runner holds shuffled data in memory, so most images only send four bytes
of their hash:

1. Mark. Hashes each shard's images, or reads the hashes in its records; groups the marks, four bytes each.
2. Find. Hashes the images with equal marks again, or reads their hashes; groups the whole hashes.
3. Name. Reads the leaking images once more, for their keys and labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.images.headers import MAX_PIXELS, Fault, probe_image
from beam_retrain.transforms.core.models.inference import set_threads
from beam_retrain.transforms.core.records.example import decode_example
from beam_retrain.transforms.core.records.hash_buckets import bucket_count, partition_by_hash
from beam_retrain.transforms.core.records.leaks import (
  HashedImages,
  Leak,
  LeakedImage,
  ShardLeaks,
  find_leaks,
  leaks_csv,
)
from beam_retrain.transforms.core.records.schema import (
  CLASS_INDEX,
  Image,
  describe_bottleneck,
  digest_of_record,
  parse_shard_name,
)
from beam_retrain.transforms.core.records.shards import Shard, ShardReport, pick_inputs
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import locate_records, read_record_at, read_records
from beam_retrain.transforms.core.system.cpu import Threads
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.io import files
from beam_retrain.transforms.leaks.duplicate_candidates import find_candidates, mark_of, unpack_marks


class AuditRecords(beam.PTransform):
  """Finds leaks in bottleneck records: PCollection[ShardReport] -> PCollection[LeakedImage].

  Attributes:
    percentages: how training images are drawn for validation.
  """

  def __init__(self, labels: Sequence[str], percentages: SplitPercentages, *, records_folder: str):
    super().__init__()
    self._labels = list(labels)
    self._records_folder = records_folder
    self._percentages = percentages

  def expand(self, reports: beam.PCollection) -> beam.PCollection:
    buckets = _buckets(reports)
    return (
      reports
      | "SpreadReports" >> beam.Reshuffle()
      # ShardReport
      | "MarkRecords" >> beam.FlatMap(_mark_records, self._records_folder, buckets)
      # (bucket, (shard's name, marks))
      | "FindCandidates" >> _FindCandidates()
      # (shard's name, list of marks)
      | "HashRecords" >> beam.FlatMap(_hash_records, self._records_folder, buckets)
      # (bucket, HashedImages)
      | "FindLeaks" >> _FindLeaks()
      # (shard's name, ShardLeaks)
      | "NameRecords" >> beam.FlatMap(_name_records, self._labels, self._records_folder, self._percentages)
    )  # LeakedImage


class AuditImages(beam.PTransform):
  """Finds leaks among planned images, before any work.

  PCollection[Shard] -> PCollection[(shard's name, NamedLeaks)]. Unusable images are left for the work to quarantine.

  Attributes:
    percentages: how training images are drawn for validation.
    max_pixels: largest height x width that is decoded.
    threads: of TensorFlow in a process that decodes leaks; None for all available cores.
  """

  def __init__(
    self,
    labels: Sequence[str],
    percentages: SplitPercentages,
    max_pixels: int = MAX_PIXELS,
    threads: Threads | None = None,
  ):
    super().__init__()
    self._labels = list(labels)
    self._percentages = percentages
    self._max_pixels = max_pixels
    self._threads = threads or Threads()

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    buckets = _buckets(shards)
    candidates = (
      shards
      | "SpreadShards" >> beam.Reshuffle()
      # Shard
      | "MarkImages" >> beam.FlatMap(_mark_images, self._labels, buckets)
      # (bucket, (shard's name, marks))
      | "FindCandidates" >> _FindCandidates()
    )  # (shard's name, list of marks)
    leaks = (
      shards
      | "PickCandidates" >> beam.FlatMap(_pick_candidates, beam.pvalue.AsDict(candidates))
      # (Shard, marks)
      | "SpreadCandidates" >> beam.Reshuffle()
      | "HashImages" >> beam.FlatMap(_hash_images, self._labels, buckets)
      # (bucket, HashedImages)
      | "FindLeaks" >> _FindLeaks()
    )  # (shard's name, ShardLeaks)
    return (
      shards
      | "PickLeaks" >> beam.FlatMap(_pick_leaks, beam.pvalue.AsDict(leaks))
      # (Shard of the leaks alone, ShardLeaks by ascending place)
      | "SpreadLeaks" >> beam.Reshuffle()
      | "NameImages" >> beam.FlatMap(_name_images, self._labels, self._percentages, self._max_pixels, self._threads)
    )  # (shard's name, NamedLeaks)


class NamedLeak(NamedTuple):
  """A leaking image, with its position in the planned shard."""

  position: int
  size_bytes: int
  picture: LeakedImage


class NamedLeaks(NamedTuple):
  """The leaks of a planned shard of `count` images."""

  count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
  leaks: list[NamedLeak]


def leaked_images(_: str, found: NamedLeaks) -> list[LeakedImage]:
  """Returns the images of an element of `AuditImages`' output."""
  return [leak.picture for leak in found.leaks]


class WriteLeaks(beam.PTransform):
  """Writes a CSV: PCollection[LeakedImage] -> PCollection of its path."""

  def __init__(self, path: str):
    super().__init__()
    self._path = path

  def expand(self, leaks: beam.PCollection) -> beam.PCollection:
    return (
      leaks
      | "CollectLeaks" >> beam.combiners.ToList()
      # list of LeakedImage
      | "WriteCsv" >> beam.Map(_write_csv, self._path)
    )  # str


def _write_csv(leaks: list[LeakedImage], path: str) -> str:
  files.write_text(path, leaks_csv(leaks))
  return path


class DropLeaks(beam.PTransform):
  """Replaces dropped images by `Quarantined`.

  (PCollection[Shard], output of `AuditImages`) -> PCollection[Shard]. Other shards keep their digests.
  """

  def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
    shards, audited = inputs
    return shards | "DropLeaks" >> beam.Map(drop_leaks, beam.pvalue.AsDict(audited))  # Shard


def drop_leaks(shard: Shard, audited: Mapping[str, NamedLeaks]) -> Shard:
  """Moves the images that `--on_leak drop` excludes to the end, quarantined.

  Args:
    shard: as planned by a source.
    audited: shard's name -> its leaks.
  """
  found = audited.get(shard.name(), NamedLeaks(0, []))
  dropped = {leak.position: leak for leak in found.leaks if leak.picture.is_dropped}
  if not dropped:
    return shard
  kept = pick_inputs(shard.inputs, [position for position in range(found.count) if position not in dropped])
  out = (leak.picture.quarantined(leak.size_bytes, shard.split) for _, leak in sorted(dropped.items()))
  return shard._replace(inputs=(*kept, *out))


class _FindCandidates(beam.PTransform):
  """PCollection[(bucket, (shard's name, marks))] -> PCollection[(shard's name, list of marks)]."""

  def expand(self, marked: beam.PCollection) -> beam.PCollection:
    return (
      marked
      | "GroupByMark" >> beam.GroupByKey()
      # (bucket, iterable of (shard's name, marks))
      | "FindInMarks" >> beam.FlatMapTuple(lambda _, marked: find_candidates(marked))
      # (shard's name, marks)
      | "GroupByShard" >> beam.GroupByKey()
      | "ListMarks" >> beam.MapTuple(lambda name, packed: (name, list(packed)))
    )


class _FindLeaks(beam.PTransform):
  """PCollection[(bucket, HashedImages)] -> PCollection[(shard's name, ShardLeaks)], for shards with leaks."""

  def expand(self, hashed: beam.PCollection) -> beam.PCollection:
    return (
      hashed
      | "GroupByHash" >> beam.GroupByKey()
      # (bucket, iterable of HashedImages)
      | "FindInBucket" >> beam.FlatMapTuple(lambda _, images: find_leaks(images))
      # (shard's name, ShardLeaks)
      | "GroupByShard" >> beam.GroupByKey()
      | "JoinBuckets" >> beam.MapTuple(_join)
    )


def _join(name: str, found: Iterable[ShardLeaks]) -> tuple[str, ShardLeaks]:
  parts = list(found)
  return name, ShardLeaks(parts[0].count, sorted(leak for part in parts for leak in part.leaks))


def _buckets(shards: beam.PCollection) -> beam.pvalue.AsSingleton:
  counted = shards | "CountShards" >> beam.combiners.Count.Globally()
  return beam.pvalue.AsSingleton(counted | "ChooseBuckets" >> beam.Map(bucket_count))


def _pack_marks(name: str, digests: Iterable[bytes], buckets: int) -> Iterator[tuple[int, tuple[str, bytes]]]:
  for bucket, members in partition_by_hash(((digest,) for digest in digests), buckets).items():
    yield bucket, (name, b"".join(mark_of(digest) for (digest,) in members))


def _mark_records(report: ShardReport, folder: str, buckets: int) -> Iterator[tuple[int, tuple[str, bytes]]]:
  path = files.join(folder, report.file)
  with files.open_to_read(path) as file:
    yield from _pack_marks(report.file, map(digest_of_record, read_records(file, path)), buckets)


def _hash_records(candidates: tuple[str, list[bytes]], folder: str, buckets: int) -> Iterator[tuple[int, HashedImages]]:
  name, packed = candidates
  marks = unpack_marks(packed)
  hashed, count = [], 0
  path = files.join(folder, name)
  with files.open_to_read(path) as file:
    for start, record in locate_records(file, path):
      count += 1
      digest = digest_of_record(record)
      if mark_of(digest) in marks:
        hashed.append((digest, start, decode_example(record, (CLASS_INDEX,))[CLASS_INDEX][0]))
  for bucket, images in partition_by_hash(hashed, buckets).items():
    yield bucket, HashedImages(name, _split_of_file(name), count, images)


def _split_of_file(name: str) -> str:
  split, *_ = parse_shard_name(name) or ("",)
  return split


def _name_records(
  in_shard: tuple[str, ShardLeaks], labels: Sequence[str], folder: str, percentages: SplitPercentages
) -> Iterator[LeakedImage]:
  name, found = in_shard
  given = _split_of_file(name)
  path = files.join(folder, name)
  with files.open_to_read(path) as file:
    for leak in found.leaks:
      record = describe_bottleneck(read_record_at(file, leak.place, path))
      yield _name(leak, record.key, record.label, percentages.split_of(record.key, given), labels)


def _name(leak: Leak, key: str, label: str, split: str, labels: Sequence[str]) -> LeakedImage:
  return LeakedImage(leak.digest.hex(), key, split, label, leak.kinds, tuple(labels[index] for index in leak.classes))


def _mark_images(shard: Shard, labels: Sequence[str], buckets: int) -> Iterator[tuple[int, tuple[str, bytes]]]:
  images = (image for image in shard.read_images(labels) if isinstance(image, Image) and image.encoded)
  yield from _pack_marks(shard.name(), (hashlib.sha256(image.encoded).digest() for image in images), buckets)


def _pick_candidates(shard: Shard, candidates: Mapping[str, list[bytes]]) -> Iterator[tuple[Shard, list[bytes]]]:
  if packed := candidates.get(shard.name()):
    yield shard, packed


def _hash_images(
  candidates: tuple[Shard, list[bytes]], labels: Sequence[str], buckets: int
) -> Iterator[tuple[int, HashedImages]]:
  shard, packed = candidates
  marks = unpack_marks(packed)
  class_indices = {label: index for index, label in enumerate(labels)}
  hashed, count = [], 0
  for position, image in enumerate(shard.read_images(labels)):
    count += 1
    if isinstance(image, Image) and image.encoded:
      digest = hashlib.sha256(image.encoded).digest()
      if mark_of(digest) in marks:
        hashed.append((digest, position, class_indices[image.label]))
  for bucket, images in partition_by_hash(hashed, buckets).items():
    yield bucket, HashedImages(shard.name(), shard.split, count, images)


def _pick_leaks(shard: Shard, leaks: Mapping[str, ShardLeaks]) -> Iterator[tuple[Shard, ShardLeaks]]:
  if found := leaks.get(shard.name()):
    yield shard._replace(inputs=pick_inputs(shard.inputs, [leak.place for leak in found.leaks])), found


def _name_images(
  picked: tuple[Shard, ShardLeaks],
  labels: Sequence[str],
  percentages: SplitPercentages,
  max_pixels: int,
  threads: Threads,
) -> Iterator[tuple[str, NamedLeaks]]:
  shard, found = picked
  load_tensorflow()
  set_threads(threads.here)
  named = []
  for leak, image in zip(found.leaks, shard.read_images(labels), strict=True):
    if not isinstance(image, Image) or hashlib.sha256(image.encoded).digest() != leak.digest:
      continue  # it was changed or deleted meanwhile: the work reports it
    if _is_sound(image.encoded, max_pixels):
      picture = _name(leak, image.key, image.label, percentages.split_of(image.key, shard.split), labels)
      named.append(NamedLeak(leak.place, len(image.encoded), picture))
  if named:
    yield shard.name(), NamedLeaks(found.count, named)


def _is_sound(encoded: bytes, max_pixels: int) -> bool:
  """Returns whether the work would accept an image."""
  if isinstance(probe_image(encoded, max_pixels), Fault):
    return False
  import tensorflow as tf

  from beam_retrain.transforms.core.images.decode import decode_rgb

  try:
    decode_rgb(tf.constant(encoded))
  except tf.errors.OpError:
    return False
  return True
