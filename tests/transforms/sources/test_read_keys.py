"""Images looked up by their keys, in every input format of `bottlenecks`."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from beam_retrain.pipelines.convert import run as convert
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.records.schema import ALL
from beam_retrain.transforms.sources.find import find_source
from tests.helpers import noise_image, write
from tests.transforms.sources.test_webdataset import samples, tar_of

COUNTS = {"train": 2100, "t10k": 9}


def read(folder, keys) -> list[tuple[str, bytes]]:
  return [(image.key, image.encoded) for image in find_source(str(folder)).read_keys(keys)]


def test_in_class_folders(small_images):
  keys = ["white/3.gif", "black/12.jpg", "grey/404.png"]
  assert read(small_images, keys) == [
    (key, (small_images / key).read_bytes()) for key in ("black/12.jpg", "white/3.gif")
  ]


@pytest.mark.parametrize("key", ["../secret.txt", "a/../../secret.txt", "ABSOLUTE"])
def test_no_key_leads_out_of_the_folder(tmp_path, key):
  write(tmp_path, {"secret.txt": b"mine", "data/a/1.png": b"1", "data/b/2.png": b"2"})
  assert read(tmp_path / "data", [key.replace("ABSOLUTE", str(tmp_path / "secret.txt"))]) == []


@pytest.fixture(scope="module")
def pixels():
  rng = np.random.default_rng(2)
  return {split: rng.integers(0, 256, (count, 5, 4), dtype=np.uint8) for split, count in COUNTS.items()}


def write_idx(folder, pixels, suffix=""):
  for split, images in pixels.items():
    labels = (np.arange(len(images)) % 10).astype(np.uint8)
    for name, array in (("images.idx3", images), ("labels.idx1", labels)):
      data = encode_idx(array)
      (folder / f"{split}-{name}-ubyte{suffix}").write_bytes(gzip.compress(data) if suffix else data)
  return folder


WANTED = ["testing/8/8.png", "training/9/2099.png", "training/0/0.png", "training/4/1024.png", "training/1/2100.png"]


def expected(pixels) -> list[tuple[str, bytes]]:
  places = {
    "training/0/0.png": ("train", 0),
    "training/4/1024.png": ("train", 1024),
    "training/9/2099.png": ("train", 2099),
    "testing/8/8.png": ("t10k", 8),
  }
  return [(key, encode_pixels(pixels[split][number], "png")) for key, (split, number) in places.items()]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_in_idx_files(tmp_path, pixels, suffix):
  assert read(write_idx(tmp_path, pixels, suffix), WANTED) == expected(pixels)


def test_in_records(tmp_path, pixels):
  (tmp_path / "idx").mkdir()
  flags = [f"--input={write_idx(tmp_path / 'idx', pixels)}", f"--output={tmp_path / 'out'}", "--formats=png,tfrecord"]
  assert convert(flags) == 0
  assert sorted(read(tmp_path / "out", WANTED)) == sorted(expected(pixels))


def test_in_webdataset_tars(tmp_path):
  write(tmp_path, {"0.tar": tar_of(samples(0, 5)), "1.tar": tar_of(samples(5, 5))})
  wanted = ["1.tar/000000007.jpg", "0.tar/000000003.jpg", "1.tar/000000003.jpg"]
  assert read(tmp_path, wanted) == [
    (f"{tar}.tar/{number:09}.jpg", noise_image(number, "JPEG")) for tar, number in ((0, 3), (1, 7))
  ]
  every = [image.key for image in find_source(str(tmp_path)).read_all((ALL,), None)]
  assert [key for key, _ in read(tmp_path, every)] == every
