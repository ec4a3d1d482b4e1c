"""Tasks on a shard: embed images, copy bottlenecks."""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from apache_beam.metrics import Metrics

from beam_retrain.transforms.bottlenecks.model_handler import BATCH_METRIC, ImageModelHandler
from beam_retrain.transforms.bottlenecks.store import locate_bottlenecks
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.exif import is_oriented
from beam_retrain.transforms.core.images.headers import Fault, check_size
from beam_retrain.transforms.core.models.inference import Inferred, LoadedModel
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import (
  Bottleneck,
  Image,
  describe_bottleneck,
  encode_bottleneck,
  relabel_bottleneck,
)
from beam_retrain.transforms.core.records.shards import BOTTLENECKS, Input, Shard, StoredBottleneck, some_oriented
from beam_retrain.transforms.core.records.tfrecord import DamagedError, frame, read_record_at
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.progress import METRICS_NAMESPACE, TRUNK_IMAGES, count_here
from beam_retrain.transforms.shards.work import ShardTask, Written, read_report_file, report_path
from beam_retrain.transforms.sources.image_files import ImageFile

ASSEMBLED = "assembled"
"""Key in the report of an assembled shard."""

IDENTITY = "identity"
"""Key in a report: `identify` of the shard that was read."""

_DIGESTS = "sha256"  # in a fresh shard's report: key of a quarantined image -> its SHA-256
_DISAPPEARED = Fault(Reason.UNREADABLE, "it changed or disappeared while the job ran: run the command again")


def identify(shard: Shard) -> str:
  """Returns a digest of the identities of a shard's local image files.

  It is empty if one is not such a file. Call it before the files are read.
  """
  identities = [
    local_files.identity(entry.path) if isinstance(entry, ImageFile) and files.is_local(entry.path) else ""
    for entry in shard.inputs
  ]
  return hashlib.sha256(repr(identities).encode()).hexdigest() if all(identities) else ""


class EmbedShard(ShardTask):
  """Writes the bottleneck records of a shard's images.

  Loads the trunk at the first image that can be decoded.
  """

  def __init__(self, handler: ImageModelHandler, labels: Sequence[str]):
    self._handler = handler
    self._class_indices = {label: index for index, label in enumerate(labels)}
    self._model: LoadedModel | None = None
    self._computed = self._oriented = 0
    self._counter = Metrics.counter(METRICS_NAMESPACE, "bottlenecks_computed")
    self._batch = Metrics.distribution(METRICS_NAMESPACE, BATCH_METRIC)

  def kind(self) -> str:
    return self._handler.kind()

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._computed = self._oriented = 0
    self._identity = identify(shard)
    for item in self._handler.infer(self._read(shard), self._load):
      match item:
        case Quarantined():
          yield item.in_split(shard.split)
        case Inferred(image, outputs):
          self._computed += 1
          self._oriented += is_oriented(image.encoded)
          yield self._record(image, outputs["bottleneck"])
    self._handler.count_loads()
    if self._computed:
      self._counter.inc(self._computed)
      count_here(TRUNK_IMAGES, self._computed)
    if self._model is not None and self._model.largest_batch is not None:
      self._batch.update(self._model.largest_batch())

  def extra(self) -> Mapping[str, int | str | Mapping[str, int | str]]:
    counts = {"computed": self._computed, "reused": 0}
    return {BOTTLENECKS: counts, IDENTITY: self._identity, **some_oriented(self._oriented)}

  def _read(self, shard: Shard) -> Iterator[Image | Quarantined]:
    return shard.read_images(self._class_indices)

  def _load(self) -> LoadedModel:
    if self._model is None:
      # The shared copy is dropped when another model is loaded.
      self._model = self._handler.load_once()
    return self._model

  def _record(self, image: Image, vector: np.ndarray) -> Written:
    record = Bottleneck(
      key=image.key,
      label=image.label,
      class_index=self._class_indices[image.label],
      vector=vector,
      format=image.format,
      height=image.height,
      width=image.width,
      sha256=image.sha256,
    )
    return Written(image.label, frame(encode_bottleneck(record)))


class EmbedFresh(EmbedShard):
  """Embeds a fresh shard; reports the digests of bad images."""

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._digests: dict[str, str] = {}  # of all images that could be read
    self._bad: list[str] = []
    for item in super().work(shard):
      if isinstance(item, Quarantined):
        self._bad.append(item.key)
      yield item

  def extra(self) -> Mapping[str, int | str | Mapping[str, int | str]]:
    return {**super().extra(), _DIGESTS: {key: self._digests[key] for key in self._bad if key in self._digests}}

  def _read(self, shard: Shard) -> Iterator[Image | Quarantined]:
    for image in super()._read(shard):
      if isinstance(image, Image):
        self._digests[image.key] = image.sha256
      yield image


def _read_fresh(path: str) -> dict[str, int | Quarantined]:
  """Returns hex SHA-256 -> start byte or fault of fresh images."""
  report = read_report_file(report_path(*files.split(path)))
  digests = report.extra[_DIGESTS]
  faults = {digests[entry.key]: entry for entry in report.quarantined if entry.key in digests}
  return {**faults, **{digest.hex(): start for digest, start in locate_bottlenecks(path)}}


class AssembleShard(ShardTask):
  """Copies the bottlenecks of a shard's images from stores and fresh shards.

  Holds one shard's records in memory, a few MB. `max_pixels` is the largest height x width allowed; the stores may have
  allowed more.
  """

  def __init__(self, labels: Sequence[str], max_pixels: int):
    self._class_indices = {label: index for index, label in enumerate(labels)}
    self._max_pixels = max_pixels
    self._counts = {"computed": 0, "reused": 0}
    self._oriented = 0
    self._reused = Metrics.counter(METRICS_NAMESPACE, "bottlenecks_reused")

  def setup(self) -> None:
    # Safe to cache: a finished fresh shard does not change.
    self._fresh = functools.lru_cache(maxsize=64)(_read_fresh)

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._counts = {"computed": 0, "reused": 0}
    self._oriented = 0
    self._identity = shard.identity
    images = [self._look_up(entry) for entry in shard.inputs]
    records = _fetch(images)
    for position, image in enumerate(images):
      item = image if isinstance(image, Quarantined) else self._write(image, records[position])
      if isinstance(item, Quarantined):
        yield item.in_split(shard.split)
      else:
        stored = cast(StoredBottleneck, image)
        self._counts["computed" if stored.computed else "reused"] += 1
        self._oriented += stored.oriented
        yield item
    self._reused.inc(self._counts["reused"])

  def extra(self) -> Mapping[str, int | str | Mapping[str, int]]:
    return {BOTTLENECKS: self._counts, ASSEMBLED: True, IDENTITY: self._identity, **some_oriented(self._oriented)}

  def _look_up(self, entry: Input) -> StoredBottleneck | Quarantined:
    """Finds the record of an image that no store had."""
    if isinstance(entry, Quarantined):
      return entry
    assert isinstance(entry, StoredBottleneck)  # made by `_place_shard`
    if entry.position is not None:
      return entry
    place = self._fresh(entry.path).get(entry.sha256, _DISAPPEARED)
    return entry._replace(position=place) if isinstance(place, int) else _quarantine(entry, place)

  def _write(self, image: StoredBottleneck, record: bytes) -> Written | Quarantined:
    stored = describe_bottleneck(record)
    if stored.sha256 != image.sha256:
      raise _changed(image.path)
    if fault := check_size(stored.height, stored.width, self._max_pixels):
      return _quarantine(image, fault)
    current = (image.key, image.label, self._class_indices[image.label])
    if current != (stored.key, stored.label, stored.class_index):
      record = relabel_bottleneck(record, *current)
    return Written(image.label, frame(record))


def _quarantine(image: StoredBottleneck, fault: Fault | Quarantined) -> Quarantined:
  return Quarantined(image.key, image.size_bytes, fault.reason, fault.detail)


def _fetch(images: Sequence[StoredBottleneck | Quarantined]) -> dict[int, bytes]:
  """Returns position -> record; reads each file once, in order."""
  starts: dict[str, list[tuple[int, int]]] = defaultdict(list)
  for position, image in enumerate(images):
    if isinstance(image, StoredBottleneck):
      assert image.position is not None
      starts[image.path].append((image.position, position))
  records = {}
  for path, wanted in starts.items():
    try:
      with files.open_to_read(path) as file:
        for start, position in sorted(wanted):
          records[position] = read_record_at(file, start, path)
    except (DamagedError, OSError) as error:  # it was intact when it was indexed
      raise _changed(path) from error
  return records


def _changed(path: str) -> InputError:
  return InputError(f"{path} was changed while it was read: run the command again.")
