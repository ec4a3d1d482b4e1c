"""The images that a report shows, read again: a few hundred of however many there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Set

import apache_beam as beam

from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.images.thumbnails import thumbnail
from beam_retrain.transforms.core.records.csv_cells import escape_cell
from beam_retrain.transforms.core.records.example import decode_example
from beam_retrain.transforms.core.records.schema import ENCODED, KEY
from beam_retrain.transforms.core.records.shards import IdxRange, ImageFile, Input, RecordsFile, Shard
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.idx import image_key, read_idx_labels, read_idx_range


class ReadThumbnails(beam.PTransform):
  """PCollection[Shard] -> PCollection of one dict: key, as the CSVs spell it -> `data:` URI.

  Attributes:
    shown: PCollections of one item each, whose `images` are lists of `ShownImage` by kind.
  """

  def __init__(self, *shown: beam.PCollection):
    super().__init__()
    self._shown = shown

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    return (
      shards
      | "ReadThumbnails" >> beam.FlatMap(_read, *(beam.pvalue.AsSingleton(shown) for shown in self._shown))
      # (key, str)
      | "CollectThumbnails" >> beam.combiners.ToDict()
    )  # dict


# `*shown` has no annotation: Beam takes one for the type of the whole tuple.
def _read(shard: Shard, *shown) -> Iterator[tuple[str, str]]:  # type: ignore[no-untyped-def]
  wanted = {image.key for step in shown for images in step.images.values() for image in images}
  for entry in shard.inputs:
    for key, encoded in _read_wanted(entry, shard.split, wanted):
      if small := thumbnail(encoded):
        yield key, small


def _read_wanted(entry: Input, split: str, wanted: Set[str]) -> Iterator[tuple[str, bytes]]:
  """Yields (key as the CSVs spell it, image bytes), reading and encoding no others where that can be helped."""
  match entry:
    case ImageFile():
      key = escape_cell(entry.key)
      if key in wanted and entry.path:
        with contextlib.suppress(OSError):  # gone meanwhile: the report says so in its place
          yield key, files.read_bytes(entry.path)
    case IdxRange():
      keys = [image_key(split, byte, entry.start + at, "png") for at, byte in enumerate(read_idx_labels(entry))]
      if not wanted.isdisjoint(keys):
        for key, (_, _, pixels) in zip(keys, read_idx_range(entry), strict=True):
          if key in wanted:
            yield key, encode_pixels(pixels, "png")
    case RecordsFile():
      with files.open_to_read(entry.path) as file:
        for record in read_records(file, entry.path):
          features = decode_example(record)
          if ENCODED not in features:
            return  # bottlenecks: their images are not at hand
          key = escape_cell(features[KEY][0].decode())
          if key in wanted:
            yield key, features[ENCODED][0]
