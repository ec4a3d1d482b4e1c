"""Images looked up by their keys, in every input format of `bottlenecks`."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.images.lookup import lookup_images
from beam_retrain.transforms.core.records.schema import Image, encode_image
from beam_retrain.transforms.core.records.tfrecord import frame


def test_in_class_folders(small_images):
  keys = ["white/3.gif", "black/12.jpg", "grey/404.png"]
  found = list(lookup_images(str(small_images), keys))
  assert found == [(key, (small_images / key).read_bytes()) for key in ("black/12.jpg", "white/3.gif")]


@pytest.mark.parametrize("key", ["../secret.txt", "a/../../secret.txt", "ABSOLUTE"])
def test_no_key_leads_out_of_the_folder(tmp_path, key):
  (tmp_path / "secret.txt").write_text("mine")
  (tmp_path / "data" / "a").mkdir(parents=True)
  key = key.replace("ABSOLUTE", str(tmp_path / "secret.txt"))
  assert list(lookup_images(str(tmp_path / "data"), [key])) == []


def test_in_records(tmp_path):
  (tmp_path / "records").mkdir()
  images = [Image(f"training/a/{number}.png", "a", bytes([number]) * 50) for number in range(6)]
  for shard in range(2):
    data = b"".join(frame(encode_image(image, 0)) for image in images[3 * shard : 3 * shard + 3])
    (tmp_path / "records" / f"training-0000{shard}-of-00002.tfrecord").write_bytes(data)
  wanted = [images[4].key, images[1].key, "training/a/9.png"]
  assert list(lookup_images(str(tmp_path), wanted)) == [(images[at].key, images[at].encoded) for at in (1, 4)]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_in_idx_files(tmp_path, suffix):
  rng = np.random.default_rng(2)
  pixels = {
    split: rng.integers(0, 256, (count, 5, 4), dtype=np.uint8) for split, count in (("train", 2100), ("t10k", 9))
  }
  for split, images in pixels.items():
    data = encode_idx(images)
    (tmp_path / f"{split}-images.idx3-ubyte{suffix}").write_bytes(gzip.compress(data) if suffix else data)
  wanted = ["testing/7/8.png", "training/5/2099.png", "training/1/0.png", "training/1/1024.png", "training/1/2100.png"]
  expected = {
    "training/1/0.png": pixels["train"][0],
    "training/1/1024.png": pixels["train"][1024],
    "training/5/2099.png": pixels["train"][2099],
    "testing/7/8.png": pixels["t10k"][8],
  }
  assert list(lookup_images(str(tmp_path), wanted)) == [(key, encode_pixels(of, "png")) for key, of in expected.items()]


@pytest.mark.parametrize(("folder", "words"), [("gs://a/b", "is remote"), ("/nowhere", "does not exist")])
def test_folders_that_cannot_be_searched(folder, words):
  with pytest.raises(InputError, match=words):
    lookup_images(folder, ["a"])
