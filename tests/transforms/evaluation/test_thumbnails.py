"""Small copies of images, and reading the chosen few of many."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from PIL import Image

from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.images.thumbnails import SIDE_PX, thumbnail
from beam_retrain.transforms.core.metrics.figures import ShownImage
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.evaluation.evaluate import PredictionsWritten, read_thumbnails
from beam_retrain.transforms.sources.find import find_source


def _encoded(width: int, height: int, kind: str, mode: str = "RGB") -> bytes:
  rng = np.random.default_rng(2)
  shape = (height, width) if mode == "L" else (height, width, 3)
  file = io.BytesIO()
  Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(file, kind)
  return file.getvalue()


def _opened(uri: str) -> Image.Image:
  return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
def test_a_large_image_becomes_small_and_keeps_its_shape(kind: str) -> None:
  uri = thumbnail(_encoded(400, 200, kind))
  assert uri is not None
  assert _opened(uri).size == (SIDE_PX, SIDE_PX // 2)
  assert len(uri) < 30_000, "noise, which hardly shrinks"


def test_a_small_one_keeps_every_pixel() -> None:
  encoded = _encoded(28, 28, "PNG", "L")
  uri = thumbnail(encoded)
  assert uri is not None
  assert uri.startswith("data:image/png;base64,")
  np.testing.assert_array_equal(np.asarray(_opened(uri)), np.asarray(Image.open(io.BytesIO(encoded))))


@pytest.mark.parametrize("damage", [b"", b"not an image", _encoded(60, 60, "PNG")[:900]])
def test_what_cannot_be_decoded_has_none(damage: bytes) -> None:
  assert thumbnail(damage) is None


def test_an_image_with_too_many_pixels_is_not_decoded() -> None:
  assert thumbnail(_encoded(60, 60, "PNG"), max_pixels=3599) is None


def _shown(*kinds: list[str]) -> PredictionsWritten:
  """Returns images to show, by their keys."""
  images = {str(kind): [ShownImage("model", key, "a", "b", 50.0) for key in keys] for kind, keys in enumerate(kinds)}
  return PredictionsWritten(images, {})


def _thumbnails(collect, folder: Path, splits: list[str], shown: PredictionsWritten) -> dict[str, str]:
  class Read(beam.PTransform):
    def expand(self, root):
      side = beam.pvalue.AsSingleton(root | "Shown" >> beam.Create([shown]))
      shards = root | find_source(str(folder)).plan(splits, None)
      return shards | beam.FlatMap(read_thumbnails, predictions=side) | beam.combiners.ToDict()

  (found,) = collect(Read())
  return found


def test_the_chosen_ones_of_class_folders(collect, small_images: Path) -> None:
  found = _thumbnails(collect, small_images, ["all"], _shown(["black/0.jpg"], ["white/1.png", "gone.png"]))
  assert sorted(found) == ["black/0.jpg", "white/1.png"]
  original = Image.open(small_images / "white/1.png")
  np.testing.assert_array_equal(np.asarray(_opened(found["white/1.png"])), np.asarray(original))


def test_the_chosen_ones_of_idx_files_and_of_records(collect, tmp_path: Path) -> None:
  from beam_retrain.pipelines import convert

  idx = tmp_path / "idx"
  idx.mkdir()
  pixels = np.random.default_rng(4).integers(0, 256, (40, 28, 28), dtype=np.uint8)
  labels = np.array([7, 2, *range(10), *range(10), *range(10), *range(8)], np.uint8)
  for split in ("train", "t10k"):
    (idx / f"{split}-images-idx3-ubyte").write_bytes(encode_idx(pixels))
    (idx / f"{split}-labels-idx1-ubyte").write_bytes(encode_idx(labels))
  first = _shown(["testing/7/0.png", "testing/2/1.png", "testing/2/0.png"])
  of_idx = _thumbnails(collect, idx, ["testing"], first)
  assert sorted(of_idx) == ["testing/2/1.png", "testing/7/0.png"]
  output = tmp_path / "records"
  flags = [f"--input={idx}", f"--output={output}", "--formats=png,tfrecord"]
  assert convert.run(flags) == 0
  assert _thumbnails(collect, output, ["testing"], first) == of_idx


def test_a_formula_for_a_name_is_found_as_the_csv_spells_it(tmp_path: Path) -> None:
  from beam_retrain.transforms.sources.image_files import ImageFile

  path = tmp_path / "one.png"
  path.write_bytes(_encoded(9, 9, "PNG"))
  shard = Shard("all", 0, 1, (ImageFile("=1.png", "a", str(path), 9, 0.0), ImageFile("b.png", "a", "", 9, 0.0)))
  assert [key for key, _ in read_thumbnails(shard, _shown(["'=1.png", "b.png"]))] == ["'=1.png"]
