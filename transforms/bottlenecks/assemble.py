"""The tasks of a run with stores: embed new images, assemble shards."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from apache_beam.metrics import Metrics

from beam_retrain.transforms.bottlenecks.embed import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.store import locate_bottlenecks
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.headers import check_size
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER, Image, describe_bottleneck, relabel_bottleneck
from beam_retrain.transforms.core.records.shards import BOTTLENECKS, Input, Shard, ShardReport, StoredBottleneck
from beam_retrain.transforms.core.records.tfrecord import DamagedError, frame, read_record_at
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.progress import METRICS_NAMESPACE
from beam_retrain.transforms.shards.work import ShardTask, Written, report_path

ASSEMBLED = "assembled"
"""Key in the report of an assembled shard."""

_DIGESTS = "sha256"  # in a fresh shard's report: key of a quarantined image -> its SHA-256


class EmbedFresh(EmbedShard):
  """Embeds a fresh shard; reports the digests of bad images."""

  def __init__(self, handler: ImageModelHandler, labels: Sequence[str], folder: str):
    super().__init__(handler, labels)
    self._folder = folder
    self._digests: dict[str, str] = {}
    self._bad: list[str] = []

  def setup(self) -> None:
    files.make_folder(files.join(self._folder, REPORTS_FOLDER))

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._digests, self._bad = {}, []
    for item in super().work(shard):
      if isinstance(item, Quarantined):
        self._bad.append(item.key)
      yield item

  def extra(self) -> Mapping[str, Any]:
    # An image that could not be read has no digest.
    digests = {key: self._digests[key] for key in self._bad if key in self._digests}
    return {**super().extra(), _DIGESTS: digests}

  def _read(self, shard: Shard) -> Iterator[Image | Quarantined]:
    for image in super()._read(shard):
      if isinstance(image, Image):
        self._digests[image.key] = image.sha256
      yield image


class _Fresh(NamedTuple):
  """Start byte or fault of a fresh shard's images, by hex SHA-256."""

  starts: dict[str, int]
  faults: dict[str, Quarantined]


def _read_fresh(path: str) -> _Fresh:
  folder, name = path.rsplit("/", 1)
  report = ShardReport.from_json(files.read_bytes(report_path(folder, name)).decode())
  starts = {digest.hex(): start for digest, start in locate_bottlenecks(path)}
  digests = report.extra[_DIGESTS]
  return _Fresh(starts, {digests[entry.key]: entry for entry in report.quarantined if entry.key in digests})


class AssembleShard(ShardTask):
  """Copies the bottlenecks of a shard's images from stores and fresh shards.

  Holds one shard's records in memory, a few MB.

  Attributes:
    max_pixels: largest height x width allowed; the stores may have allowed more.
  """

  def __init__(self, labels: Sequence[str], max_pixels: int, folder: str):
    self._class_indices = {label: index for index, label in enumerate(labels)}
    self._max_pixels = max_pixels
    self._folder = folder
    self._counts = {"computed": 0, "reused": 0}
    self._reused = Metrics.counter(METRICS_NAMESPACE, "bottlenecks_reused")

  def setup(self) -> None:
    files.make_folder(files.join(self._folder, REPORTS_FOLDER))
    # Safe to cache: a finished fresh shard does not change.
    self._fresh = functools.lru_cache(maxsize=64)(_read_fresh)

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._counts = {"computed": 0, "reused": 0}
    images = [self._look_up(entry) for entry in shard.inputs]
    records = _fetch(images)
    for position, image in enumerate(images):
      item = image if isinstance(image, Quarantined) else self._write(image, records[position])
      if isinstance(item, Quarantined):
        yield item.in_split(shard.split)
      else:
        self._counts["computed" if cast(StoredBottleneck, image).computed else "reused"] += 1
        yield item
    self._reused.inc(self._counts["reused"])

  def extra(self) -> Mapping[str, Any]:
    return {BOTTLENECKS: self._counts, ASSEMBLED: True}

  def _look_up(self, entry: Input) -> StoredBottleneck | Quarantined:
    """Finds the record of an image that no store had."""
    if isinstance(entry, Quarantined):
      return entry
    assert isinstance(entry, StoredBottleneck)  # made by `_place_shard`
    if entry.position is not None:
      return entry
    fresh = self._fresh(entry.path)
    if (start := fresh.starts.get(entry.sha256)) is not None:
      return entry._replace(position=start)
    fault = fresh.faults.get(entry.sha256)
    if fault is None:
      detail = "it changed or disappeared while the job ran: run the command again"
      return Quarantined(entry.key, entry.size_bytes, Reason.UNREADABLE, detail)
    return Quarantined(entry.key, entry.size_bytes, fault.reason, fault.detail)

  def _write(self, image: StoredBottleneck, record: bytes) -> Written | Quarantined:
    found = describe_bottleneck(record)
    if found.sha256 != image.sha256:
      raise _changed(image.path)
    if fault := check_size(found.height, found.width, self._max_pixels):
      return Quarantined(image.key, image.size_bytes, fault.reason, fault.detail)
    current = (image.key, image.label, self._class_indices[image.label])
    if current != (found.key, found.label, found.class_index):
      record = relabel_bottleneck(record, *current)
    return Written(image.label, frame(record))


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
