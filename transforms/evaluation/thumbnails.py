"""Makes thumbnails of the images that a report shows."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam

from beam_retrain.transforms.core.images.thumbnails import thumbnail
from beam_retrain.transforms.core.records.csv_format import escape_cell
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.records.shards import Shard


class ReadThumbnails(beam.PTransform):
  """Makes the thumbnails of shown images.

  PCollection[Shard] -> PCollection of one dict, key as in the CSVs -> `data:` URI.

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
    for image in entry.read_where(shard.split, lambda key: escape_cell(key) in wanted):
      # An image deleted meanwhile has no thumbnail.
      if isinstance(image, Image) and (small := thumbnail(image.encoded)):
        yield escape_cell(image.key), small
