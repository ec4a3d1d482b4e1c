"""Reuses stored bottlenecks; the trunk runs only over new images.

Images are equal if their bytes are. Only names and hashes cross the shuffles.

0. Carry.    Copies a shard that a store has whole, of files that have not been touched since: no image is read.
1. Hash.     Reads each shard's images for their SHA-256, and each store's record files up to the first damage.
2. Match.    Groups both by hash. Of equal images that no store has, the first by shard and position is the owner.
3. Embed.    Packs the owners into fresh shards (a hundred from sixty shards are four batches, not sixty) and embeds
             them in a folder of their own.
4. Assemble. Copies the records of each planned shard from the stores and that folder, in the shard's order.

An assembled file has the same bytes, name and digest as one computed by the trunk: a killed run can be resumed with
--reuse, without it, or with another store.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam

from beam_retrain.transforms.bottlenecks.embed import ASSEMBLED, IDENTITY, AssembleShard, EmbedFresh, identify
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.store import locate_sound, record_files
from beam_retrain.transforms.core.images.exif import is_oriented
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import RECORDS_FOLDER, shard_name
from beam_retrain.transforms.core.records.shards import (
  BOTTLENECKS,
  IMAGES_PER_SHARD,
  ORIENTED,
  Input,
  Shard,
  ShardReport,
  StoredBottleneck,
  bucket_count,
  pack,
  partition_by_hash,
  pick_inputs,
  some_oriented,
  unpack,
)
from beam_retrain.transforms.core.system.locks import Claim, claim_of
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import WorkShards, copy_shard, read_report

_CARRIED = "carried"
_TO_MATCH = "to_match"
_MISSING = "missing"
_OWN_RUN = sys.maxsize  # ranks last: finished shards of a killed run without reuse


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class EmbedOnlyNew(beam.PTransform):
  """Writes bottleneck records: PCollection[Shard] -> PCollection[ShardReport]."""

  handler: ImageModelHandler  # the trunk; loaded only for new images
  labels: Sequence[str]
  stores: Sequence[str]  # from `find_stores`; the first that has an image is used
  output: str
  fresh_folder: str  # for the bottlenecks of new images, from which a killed run resumes; delete it at the end
  request: str  # digest of everything but the images that determines the bytes; independent of the stores
  checked: beam.PCollection | None = None  # computed before any work starts
  images_per_shard: int = IMAGES_PER_SHARD  # at most, unless one planned shard has more new ones

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    placed, carried = self._place(shards)
    # Shard of StoredBottleneck or Quarantined; (Shard of missing images, their number); ShardReport
    packing = beam.pvalue.AsSingleton(
      placed[_MISSING]
      | "CountMissing" >> beam.MapTuple(lambda shard, count: (shard.split, shard.name(), count))
      # (split, shard's name, int)
      | "CollectMissing" >> beam.combiners.ToList()
      | "PackFresh" >> beam.Map(assign_fresh, self.images_per_shard)
    )  # shard's name -> (split, index, of) of the fresh shard
    fresh = (
      placed[_MISSING]
      | "AssignFresh" >> beam.Map(lambda missing, packing: (packing[missing[0].name()], missing[0]), packing)
      | "GroupFresh" >> beam.GroupByKey()
      | "MakeFresh" >> beam.MapTuple(_make_fresh)
      # Shard
      | "Embed" >> WorkShards(EmbedFresh(self.handler, self.labels), output=self.fresh_folder, request=self.request)
    )  # ShardReport
    assemble = AssembleShard(self.labels, self.handler.max_pixels)
    assembled = (
      placed.shards
      | "FindFresh" >> beam.Map(_find_fresh, self.fresh_folder, packing)
      # Shard of StoredBottleneck or Quarantined
      | "Assemble" >> WorkShards(assemble, output=self.output, request=self.request, checked=fresh)
    )
    return (carried, assembled) | "FlattenReports" >> beam.Flatten()  # ShardReport

  def _place(self, shards: beam.PCollection) -> tuple[beam.DoOutputsTuple, beam.PCollection]:
    """Returns (shards with the places of their bottlenecks, `missing` images), carried reports."""
    checked = [beam.pvalue.AsList(self.checked)] if self.checked is not None else []
    buckets = beam.pvalue.AsSingleton(
      shards | "CountShards" >> beam.combiners.Count.Globally() | "ChooseBuckets" >> beam.Map(bucket_count)
    )
    hash_shard = _HashShard(self.labels, claim_of(self.output), self.request, self.stores)
    hashed = (
      shards
      | "SpreadShards" >> beam.Reshuffle()
      # Shard
      | "HashShard" >> beam.ParDo(hash_shard, buckets, *checked).with_outputs(_TO_MATCH, _CARRIED, main="listed")
    )  # (shard's name, (planned Shard, Shard without places)); (bucket, Hashed or Stored); ShardReport
    to_match = beam.pvalue.AsSingleton(hashed.listed | "CountToMatch" >> beam.combiners.Count.Globally())
    stored = (
      shards.pipeline
      | "CreateStores" >> beam.Create(list(enumerate(itertools.chain.from_iterable(map(record_files, self.stores)))))
      # (rank, path)
      | "IndexStore" >> beam.FlatMap(_index_store, buckets, to_match)
    )  # (bucket, Stored)
    matched = (
      (hashed[_TO_MATCH], stored)
      | "FlattenHashes" >> beam.Flatten()
      | "GroupByHash" >> beam.GroupByKey()
      # (bucket, iterable of Hashed or Stored)
      | "Match" >> beam.FlatMapTuple(lambda _, entries: match(entries))
    )  # (shard's name, packed Places)
    placed = (
      {"listed": hashed.listed, "matched": matched}
      | "GroupByShard" >> beam.CoGroupByKey()
      | "PlaceShard" >> beam.FlatMapTuple(_place_shard).with_outputs(_MISSING, main="shards")
    )
    return placed, hashed[_CARRIED]


class Hashed(NamedTuple):
  """A shard's images in one bucket, (SHA-256 of 32 bytes, position) each."""

  shard: str
  images: list[tuple[bytes, int]]


class Stored(NamedTuple):
  """Bottlenecks of a record file, (SHA-256 of 32 bytes, start byte) each."""

  rank: int  # the lowest wins
  path: str
  records: list[tuple[bytes, int]]


class Place(NamedTuple):
  """The place of an image's bottleneck."""

  position: int  # of the image in its shard
  source: str  # the record file; if `start` is None, the name of the owner's planned shard
  start: int | None  # first byte of the record
  computed: bool  # whether the image is an owner that no store has


def _index_store(ranked: tuple[int, str], buckets: int, to_match: int = 1) -> Iterator[tuple[int, Stored]]:
  rank, path = ranked
  if not to_match:  # all shards are carried
    return
  for bucket, records in partition_by_hash(locate_sound(path), buckets).items():
    yield bucket, Stored(rank, path, records)


@dataclasses.dataclass(eq=False)
class _HashShard(beam.DoFn):
  labels: Sequence[str]
  claim: Claim
  request: str
  stores: Sequence[str]

  # `*_` has no annotation: Beam takes one for the type of the whole tuple.
  def process(self, shard: Shard, buckets: int, *_) -> Iterator[Any]:  # type: ignore[no-untyped-def]
    digest = shard.digest(self.request)
    if carried := self._carry(shard, digest):
      yield beam.pvalue.TaggedOutput(_CARRIED, carried)
      return
    finished = read_report(self.claim.folder, shard.name(), digest)
    if finished and ASSEMBLED in finished.extra:
      finished = None  # its new images are still in the fresh folder; reused from here, the fresh shards would change
    bad = {entry.key: entry for entry in finished.quarantined} if finished else {}
    images: list[StoredBottleneck | Quarantined] = []
    hashed: list[tuple[bytes, int]] = []
    identity, listed = identify(shard), shard.begun()
    for position, image in enumerate(listed.read_images(self.labels)):
      if isinstance(image, Quarantined):
        images.append(image.in_split(shard.split))
      elif image.key in bad:
        images.append(bad[image.key])
      else:
        sha256 = image.sha256
        hashed.append((bytes.fromhex(sha256), position))
        about = (image.key, image.label, len(image.encoded), sha256)
        images.append(StoredBottleneck(*about, "", None, False, is_oriented(image.encoded)))
    yield shard.name(), (shard, listed._replace(inputs=tuple(images), same_as=digest, identity=identity))
    for bucket, members in partition_by_hash(hashed, buckets).items():
      yield beam.pvalue.TaggedOutput(_TO_MATCH, (bucket, Hashed(shard.name(), members)))
    if finished:
      for entry in _index_store((_OWN_RUN, files.join(self.claim.folder, shard.name())), buckets):
        yield beam.pvalue.TaggedOutput(_TO_MATCH, entry)

  def _carry(self, shard: Shard, digest: str) -> ShardReport | None:
    """Copies the shard from a store that has it; returns its report."""
    identity = identify(shard)
    for store in self.stores if identity else ():
      records = files.join(store, RECORDS_FOLDER)
      if (stored := read_report(records, shard.name(), digest)) and stored.extra.get(IDENTITY) == identity:
        extra = {BOTTLENECKS: {"computed": 0, "reused": stored.outputs}, ASSEMBLED: True, IDENTITY: identity}
        report = dataclasses.replace(stored, extra={**extra, **some_oriented(stored.extra.get(ORIENTED, 0))})
        self.claim.check(files.read_bytes)
        copy_shard(records, self.claim.folder, report)
        return report
    return None


def match(entries: Iterable[Hashed | Stored]) -> Iterator[tuple[str, bytes]]:
  """Yields (shard's name, packed `Place`s) for the images of one bucket."""
  wanted: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
  stored: list[Stored] = []
  for entry in entries:
    if isinstance(entry, Stored):
      stored.append(entry)
    else:
      for digest, position in entry.images:
        wanted[digest].append((entry.shard, position))
  best: dict[bytes, tuple[int, str, int]] = {}
  for rank, path, records in stored:
    for digest, start in records:
      if digest in wanted:
        candidate = (rank, path, start)
        best[digest] = min(best.get(digest, candidate), candidate)
  places: dict[str, list[Place]] = defaultdict(list)
  for digest, images in wanted.items():
    owner = min(images)
    rank, source, begins = best.get(digest, (_OWN_RUN, owner[0], None))
    for shard, position in images:
      is_computed = rank == _OWN_RUN and (shard, position) == owner
      places[shard].append(Place(position, source, begins, is_computed))
  for shard, in_shard in places.items():
    yield shard, pack(in_shard)


def _place_shard(_: str, grouped: Mapping[str, Iterable[Any]]) -> Iterator[Any]:
  ((shard, listed),) = grouped["listed"]
  images = list(listed.inputs)
  missing = []
  for position, source, start, computed in itertools.chain.from_iterable(map(unpack, grouped["matched"])):
    images[position] = images[position]._replace(path=source, position=start, computed=computed)
    if computed and start is None:
      missing.append(position)
  yield listed._replace(inputs=tuple(images))
  if missing:
    of_missing = shard._replace(inputs=pick_inputs(shard.inputs, sorted(missing)))
    yield beam.pvalue.TaggedOutput(_MISSING, (of_missing, len(missing)))


def assign_fresh(counts: Iterable[tuple[str, str, int]], size: int) -> dict[str, tuple[str, int, int]]:
  """Returns planned shard's name -> (split, index, of) of its fresh shard.

  Neighbouring shards share a fresh one of at most `size` images; a shard's images stay together, so that one more image
  moves few others. `counts` are (split, planned shard's name, missing images), in any order.
  """
  indices: dict[str, tuple[str, int]] = {}
  last: dict[str, tuple[int, int]] = {}  # split -> (index of the last fresh shard, images in it)
  for split, name, count in sorted(counts):
    index, filled = last.get(split, (0, 0))
    if filled and filled + count > size:
      index, filled = index + 1, 0
    last[split] = (index, filled + count)
    indices[name] = (split, index)
  return {name: (split, index, last[split][0] + 1) for name, (split, index) in indices.items()}


def _make_fresh(name: tuple[str, int, int], missing: Iterable[Shard]) -> Shard:
  in_order = sorted(missing, key=Shard.name)
  inputs = tuple(itertools.chain.from_iterable(shard.inputs for shard in in_order))
  return Shard(*name, inputs=inputs, corrections=in_order[0].corrections)


def _find_fresh(shard: Shard, fresh_folder: str, packing: Mapping[str, tuple[str, int, int]]) -> Shard:
  """Replaces the names of owners' shards by paths of fresh shards."""

  def find(image: Input) -> Input:
    if isinstance(image, StoredBottleneck) and image.position is None:
      return image._replace(path=files.join(fresh_folder, shard_name(*packing[image.path])))
    return image

  return shard._replace(inputs=tuple(map(find, shard.inputs)))
