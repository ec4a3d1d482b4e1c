"""Imports `retrain.py`'s text bottlenecks into a store for reuse.

Their numbers differ from ours: TensorFlow 1 resized images off by a fraction of a pixel, and another version of a
module has other weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from beam_retrain.transforms.compat.text_bottlenecks import Texts, read_vector, wrong_length
from beam_retrain.transforms.core.images.headers import ImageInfo, find_damage, probe_image
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import (
  RECORDS_FOLDER,
  STATS_FILE,
  Bottleneck,
  Image,
  encode_bottleneck,
)
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import ShardTask, WorkShards, Written

IMPORTED, DAMAGED = "imported", "damaged"


class ImportTexts(ShardTask):
  """Writes bottleneck records of images that have a sound text file.

  Leaves out the others, and images that cannot be decoded: the trunk's run reports those. `dimensions` is the length D
  of the trunk's bottleneck.

  Raises:
    InputError: a text file has more than D numbers. One with fewer was cut off (`check_lengths` rejects other trunks).
  """

  def __init__(self, texts: Texts, labels: Sequence[str], dimensions: int, max_pixels: int):
    self._texts = texts
    self._labels = list(labels)
    self._class_indices = {label: index for index, label in enumerate(labels)}
    self._dimensions = dimensions
    self._max_pixels = max_pixels
    self._damaged = 0

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._damaged = 0
    for entry in shard.inputs:
      ((key, label),) = entry.names(shard.split)
      # Images without a label are already quarantined.
      if label is not None and (vector := self._find(key)) is not None:
        for image in shard._replace(inputs=(entry,)).read_images(self._labels):
          if isinstance(image, Image) and (record := self._encode(image, vector)):
            yield Written(image.label, frame(record))

  def extra(self) -> Mapping[str, Any]:
    return {DAMAGED: self._damaged}

  def check(self, shard: Shard) -> None:
    """Reads the shard's text files, but no images; raises as above."""
    for key, label in shard.names():
      if label is not None:
        self._find(key)

  def _find(self, key: str) -> np.ndarray | None:
    path = self._texts.path_of(key)
    if not files.exists(path):
      return None
    vector = read_vector(path)
    if vector is not None and len(vector) > self._dimensions:
      raise wrong_length(path, len(vector), self._dimensions)
    if vector is None or len(vector) < self._dimensions:
      self._damaged += 1
      return None
    return vector

  def _encode(self, image: Image, vector: np.ndarray) -> bytes | None:
    info = probe_image(image.encoded, self._max_pixels)
    if not isinstance(info, ImageInfo) or find_damage(image.encoded):
      return None
    return encode_bottleneck(
      Bottleneck(
        key=image.key,
        label=image.label,
        class_index=self._class_indices[image.label],
        vector=vector,
        format=info.format,
        height=info.height,
        width=info.width,
        sha256=image.sha256,
      )
    )


class ImportTextBottlenecks(beam.PTransform):
  """PCollection[Shard] -> PCollection[dict]: writes a store and its `stats.json`.

  `request` is the digest of everything but the images that determines the bytes; `checked` is computed before the work
  starts.
  """

  def __init__(self, task: ImportTexts, store: str, request: str, checked: beam.PCollection | None = None):
    super().__init__()
    self._task = task
    self._store = store
    self._request = request
    self._checked = checked

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    folder = files.join(self._store, RECORDS_FOLDER)
    return (
      shards
      | "Import" >> WorkShards(self._task, output=folder, request=self._request, checked=self._checked)
      # ShardReport
      | "CollectReports" >> beam.combiners.ToList()
      | "WriteCounts" >> beam.Map(_write_counts, self._store)
    )  # dict


def _write_counts(reports: Sequence[ShardReport], store: str) -> dict[str, int]:
  counts = {
    IMPORTED: sum(report.outputs for report in reports),
    DAMAGED: sum(report.extra[DAMAGED] for report in reports),
  }
  files.write_text(files.join(store, STATS_FILE), json.dumps(counts, indent=2) + "\n")
  return counts
