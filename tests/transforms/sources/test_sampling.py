"""Samples of every kind of input, without a Beam job."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from beam_retrain.pipelines import convert
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.records.schema import ALL, TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.sources.find import find_source

COUNTS = {"train": 1500, "t10k": 60}


@pytest.fixture(scope="module")
def idx_folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("idx")
  rng = np.random.default_rng(8)
  for split, count in COUNTS.items():
    pixels = rng.integers(0, 256, (count, 6, 5), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    (folder / f"{split}-images-idx3-ubyte").write_bytes(encode_idx(pixels))
    (folder / f"{split}-labels-idx1-ubyte").write_bytes(encode_idx(labels))
  return folder


@pytest.fixture(scope="module")
def inputs(idx_folder, tmp_path_factory):
  """The same images in every form."""
  zipped = tmp_path_factory.mktemp("gz")
  for path in idx_folder.iterdir():
    (zipped / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
  found = {"idx": idx_folder, "gz": zipped}
  for kind in ("jpg", "tfrecord"):
    found[kind] = tmp_path_factory.mktemp(kind) / "out"
    flags = [f"--input={idx_folder}", f"--output={found[kind]}", f"--formats={kind}"]
    assert convert.run(flags) == 0
  return found


BOTH = (TRAINING, TESTING)


def stems(images) -> list[str]:
  assert all(isinstance(image, Image) for image in images)
  return [image.key.rsplit(".", 1)[0] for image in images]


@pytest.mark.parametrize("kind", ["idx", "gz", "jpg", "tfrecord"])
def test_all_images_come_once(inputs, kind):
  keys = stems(list(find_source(str(inputs[kind])).read_all(BOTH, None)))
  assert sorted(keys) == sorted(
    f"{split}/{number % 10}/{number}" for split, count in ((TRAINING, 1500), (TESTING, 60)) for number in range(count)
  )


@pytest.mark.parametrize("kind", ["idx", "gz", "jpg", "tfrecord"])
def test_a_sample_is_of_these_and_always_the_same(inputs, kind):
  source = find_source(str(inputs[kind]))
  every = {image.key: image for image in source.read_all(BOTH, None)}
  sample = list(source.read_sample(BOTH, None, 50))
  assert len({image.key for image in sample}) == 50
  assert all(every[image.key] == image for image in sample)
  assert list(source.read_sample(BOTH, None, 50)) == sample
  # A smaller one is in it, and it is from everywhere.
  assert {image.key for image in source.read_sample(BOTH, None, 9)} < {image.key for image in sample}
  assert len({image.label for image in sample}) > 5
  # The first 50 would be of one writer, one camera, one day.
  assert len({image.key for image in sample} & set(list(every)[:50])) < 20
  assert {image.key.split("/")[0] for image in list(source.read_sample((TESTING,), None, 9))} == {TESTING}
  assert len(list(source.read_sample((TESTING,), None, 999))) == 60


def test_plain_class_folders_are_split_by_the_hash_of_the_names(small_images):
  source = find_source(str(small_images))
  percentages = SplitPercentages(testing=30)
  testing = [image.key for image in source.read_all((TESTING,), percentages)]
  every = [image.key for image in source.read_all((ALL,), None)]
  assert len(every) == 120
  assert testing == [key for key in every if percentages.split_of(key) == TESTING]
  assert 20 < len(testing) < 55


def test_of_many_record_files_a_sample_may_be_of_a_few(inputs):
  source = find_source(str(inputs["tfrecord"]))
  files = [{image.key for image in shard.read_images(source.labels)} for shard in source.list_shards(BOTH, None)]
  assert len(files) == 3
  sample = {image.key for image in source.read_sample(BOTH, None, 50, max_files=1)}
  assert len(sample) == 50
  assert sum(sample <= keys for keys in files) == 1
  assert {image.key for image in source.read_sample(BOTH, None, 50, max_files=1)} == sample
  assert len({image.label for image in source.read_sample(BOTH, None, 50, max_files=9)}) > 5


@pytest.mark.parametrize("kind", ["idx", "gz", "jpg", "tfrecord"])
def test_whether_there_are_so_many(inputs, kind):
  source = find_source(str(inputs[kind]))
  assert source.has_at_least(1560)
  assert not source.has_at_least(1561)


def test_whether_a_manifest_has_so_many(tmp_path):
  rows = "".join(f"{number}.png,{number % 2}\n" for number in range(5))
  (tmp_path / "list.csv").write_text(f"file_name,label\n{rows}")
  source = find_source(str(tmp_path / "list.csv"))
  assert source.has_at_least(5)
  assert not source.has_at_least(7)


@pytest.mark.parametrize("kind", ["idx", "gz", "tfrecord"])
def test_a_typical_shard_of_one_file_is_its_first(inputs, kind):
  source = find_source(str(inputs[kind]))
  shard, count = source.typical_shard((TRAINING,), None, 7)
  keys = stems(list(shard.read_images(source.labels)))
  assert count == len(keys) == 1024
  first, *_ = source.list_shards((TRAINING,), None)
  assert keys == stems(list(first.read_images(source.labels)))[:1024]
  assert source.typical_shard((TESTING,), None, 7)[1] == 60


def test_a_typical_shard_of_many_files_is_a_sample_of_them_again_and_again(inputs):
  source = find_source(str(inputs["jpg"]))
  shard, count = source.typical_shard((TRAINING,), None, 7)
  keys = stems(list(shard.read_images(source.labels)))
  sample = stems(list(source.read_sample((TRAINING,), None, 7)))
  assert count == len(keys) == 1024
  assert keys[:14] == sample * 2


@pytest.mark.parametrize("kind", ["idx", "jpg"])
def test_a_sample_of_very_many_looks_at_some_of_them(inputs, kind, monkeypatch):
  source = find_source(str(inputs[kind]))
  every = {image.key for image in source.read_sample(BOTH, None, 2000)}
  of_all = [image.key for image in source.read_sample(BOTH, None, 9, max_files=4)]
  for module in ("idx", "image_files"):
    monkeypatch.setattr(f"beam_retrain.transforms.sources.{module}.SAMPLED_FROM", 1050)
  looked_at = [image.key for image in source.read_sample(BOTH, None, 2000, max_files=4)]
  assert 500 < len(looked_at) < 1500
  assert set(looked_at) < every == {image.key for image in source.read_sample(BOTH, None, 2000)}
  assert len({key.split("/")[1] for key in looked_at}) == 10
  sample = [image.key for image in source.read_sample(BOTH, None, 9, max_files=4)]
  assert set(sample) < set(looked_at)
  assert len(set(of_all) & set(sample)) > 2  # it is still by the smallest hashes


def test_a_manifest_of_very_many_that_is_sorted_by_label_is_sampled_from_all_labels(tmp_path, monkeypatch):
  for number in range(30):
    (tmp_path / f"{number}.png").write_bytes(b"1")
  rows = "".join(f"{number}.png,{number // 15}\n" for number in range(30))
  (tmp_path / "list.csv").write_text(f"file_name,label\n{rows}")
  source = find_source(str(tmp_path / "list.csv"))
  monkeypatch.setattr("beam_retrain.transforms.sources.image_files.SAMPLED_FROM", 20)
  looked_at = {image.key for image in source.read_sample((ALL,), None, 30, max_files=4)}
  assert looked_at == {f"{number}.png" for number in range(0, 30, 2)}
