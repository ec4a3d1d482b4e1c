"""IDX files are found in every spelling, checked, and cut into the same shards whether plain or gzip."""

from __future__ import annotations

import gc
import gzip
import os
import pickle
import shutil

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from beam_retrain.pipelines.jobs.thread_runner import ThreadRunner
from beam_retrain.transforms.core.errors import InputError, user_sentence
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.records.shards import pick_inputs
from beam_retrain.transforms.sources.idx import (
  IdxSource,
  PlanIdxShards,
  SpilledBytes,
  cut_into_shards,
  find_idx_splits,
  image_key,
)

_NAMES = {"training": "train", "testing": "t10k"}
_PIXELS = np.random.default_rng(5).integers(0, 256, (10, 4, 3), np.uint8)
_LABELS = np.arange(10, dtype=np.uint8)


def _write_split(folder, split="training", mark="-", gz=False, pixels=_PIXELS, labels=_LABELS):
  for kind, dimensions, array in (("images", 3, pixels), ("labels", 1, labels)):
    data = encode_idx(array)
    name = f"{_NAMES[split]}-{kind}{mark}idx{dimensions}-ubyte"
    path = folder / (name + ".gz" if gz else name)
    path.write_bytes(gzip.compress(data) if gz else data)


def _shards(folder, images_per_shard=4):
  """What a pipeline plans, in the order of the shards; it comes back by a file, as any output does."""
  kept = str(folder / "shards.pickle")
  pairs = find_idx_splits(str(folder), ["training"])
  with beam.Pipeline(ThreadRunner()) as pipeline:
    planned = pipeline | PlanIdxShards(pairs, images_per_shard=images_per_shard)
    _ = planned | beam.combiners.ToList() | "Keep" >> beam.Map(_keep, kept)
  with open(kept, "rb") as file:
    return sorted(pickle.load(file), key=lambda shard: shard.index)


def _keep(shards, path):
  with open(path, "wb") as file:
    pickle.dump(shards, file)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("mark", ["-", "."])
def test_both_spellings_plain_or_gzip(tmp_path, mark, gz):
  _write_split(tmp_path, "training", mark, gz)
  _write_split(tmp_path, "testing", mark, gz)
  assert IdxSource.recognises(str(tmp_path))
  pairs = find_idx_splits(str(tmp_path))
  assert [(pair.split, pair.count, pair.rows, pair.columns) for pair in pairs] == [
    ("training", 10, 4, 3),
    ("testing", 10, 4, 3),
  ]


def test_plain_wins_over_gzip_whatever_its_spelling(tmp_path):
  _write_split(tmp_path, mark="-", gz=True)
  _write_split(tmp_path, mark=".")
  (pair,) = find_idx_splits(str(tmp_path), ["training"])
  assert os.path.basename(pair.images.path) == "train-images.idx3-ubyte"


def test_another_folder_is_not_idx(tmp_path):
  (tmp_path / "train-images-idx3-ubyte").mkdir()
  (tmp_path / "0.jpg").write_bytes(b"")
  assert not IdxSource.recognises(str(tmp_path))
  assert not IdxSource.recognises(str(tmp_path / "missing"))


def test_a_folder_whose_name_is_a_pattern(tmp_path):
  folder = tmp_path / "mnist [1]*"
  folder.mkdir()
  _write_split(folder)
  assert IdxSource.recognises(str(folder))
  assert len(_shards(folder)) == 3


def test_a_missing_file_is_named_in_all_its_spellings(tmp_path):
  _write_split(tmp_path)
  (tmp_path / "train-labels-idx1-ubyte").unlink()
  with pytest.raises(InputError) as error:
    find_idx_splits(str(tmp_path))
  for name in ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"):
    assert f"{name}," in str(error.value)
    assert f"{name}.gz" in str(error.value)


@pytest.mark.parametrize(
  ("gz", "scratch", "kind"), [(False, "", type(None)), (True, "", bytes), (True, "s", SpilledBytes)]
)
def test_ranges_give_back_index_label_and_pixels(tmp_path, gz, scratch, kind):
  _write_split(tmp_path, gz=gz)
  (tmp_path / "s").mkdir()
  (pair,) = find_idx_splits(str(tmp_path), ["training"])
  shards = list(cut_into_shards(pair, 4, scratch and str(tmp_path / scratch)))
  assert [(shard.index, shard.of, shard.inputs[0].count) for shard in shards] == [(0, 3, 4), (1, 3, 4), (2, 3, 2)]
  assert {type(shard.inputs[0].pixels) for shard in shards} == {kind}
  assert {shard.inputs[0].labels is not None for shard in shards} == {gz}
  names = [name for shard in shards for name in shard.names()]
  assert names == [(f"training/{number}/{number}.png", str(number)) for number in range(10)]
  arrays = [shard.inputs[0].read_arrays() for shard in shards]
  assert [label for _, labels in arrays for label in labels] == [str(number) for number in range(10)]
  np.testing.assert_array_equal(np.concatenate([pixels for pixels, _ in arrays]), _PIXELS)
  (picked,) = pick_inputs(shards[1].inputs, [1, 2])
  assert list(picked.names("training")) == names[5:7]
  np.testing.assert_array_equal(picked.read_arrays()[0], _PIXELS[5:7])


def test_what_is_spilled_is_the_same_shard_as_what_travels_and_goes_with_the_pipeline(tmp_path):
  _write_split(tmp_path, gz=True)
  (pair,) = find_idx_splits(str(tmp_path), ["training"])
  planned = _shards(tmp_path)
  assert [shard.digest("") for shard in planned] == [shard.digest("") for shard in cut_into_shards(pair, 4)]
  gc.collect()
  paths = {shard.inputs[0].pixels.path for shard in planned}
  assert len(paths) == 1
  assert not os.path.exists(os.path.dirname(paths.pop()))


def test_pixels_that_no_scratch_file_takes_travel(tmp_path):
  _write_split(tmp_path, gz=True)
  (pair,) = find_idx_splits(str(tmp_path), ["training"])
  shards = list(cut_into_shards(pair, 4, str(tmp_path / "not there")))
  assert shards == list(cut_into_shards(pair, 4))


def test_only_the_gzip_file_of_a_pair_travels(tmp_path):
  _write_split(tmp_path)
  labels = tmp_path / "train-labels-idx1-ubyte"
  (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels.read_bytes()))
  labels.unlink()
  idx_range = _shards(tmp_path)[1].inputs[0]
  assert idx_range.pixels is None
  assert idx_range.labels == bytes([4, 5, 6, 7])
  assert idx_range.read_arrays()[1] == ("4", "5", "6", "7")


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_the_number_of_shards_depends_on_the_data_alone(tmp_path, count):
  _write_split(tmp_path, pixels=_PIXELS[:count], labels=_LABELS[:count])
  pairs = find_idx_splits(str(tmp_path), ["training"])
  with beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner"])) as pipeline:
    counts = pipeline | PlanIdxShards(pairs, images_per_shard=4) | beam.Map(lambda shard: shard.inputs[0].count)
    assert_that(counts, equal_to([min(4, count - start) for start in range(0, count, 4)]))


def test_a_changed_file_is_another_digest(tmp_path):
  _write_split(tmp_path)
  before = [shard.digest("") for shard in _shards(tmp_path)]
  assert before == [shard.digest("") for shard in _shards(tmp_path)]
  os.utime(tmp_path / "train-labels-idx1-ubyte", (1, 2_000_000_000))
  assert not set(before) & {shard.digest("") for shard in _shards(tmp_path)}


@pytest.mark.parametrize(("change", "said"), [(-1, "byte 135: the file ends"), (1, "byte 136: 10 images of 4 x 3")])
@pytest.mark.parametrize("gz", [False, True])
def test_a_file_of_the_wrong_length(tmp_path, gz, change, said):
  _write_split(tmp_path, gz=gz)
  data = encode_idx(_PIXELS)
  data = data[:change] if change < 0 else data + b"x"
  path = tmp_path / ("train-images-idx3-ubyte.gz" if gz else "train-images-idx3-ubyte")
  path.write_bytes(gzip.compress(data) if gz else data)
  with pytest.raises(Exception, match="byte") as error:
    _shards(tmp_path)
  assert f"{path}: {said}" in user_sentence(error.value)


def test_a_gzip_labels_file_that_is_too_long(tmp_path):
  _write_split(tmp_path, gz=True)
  path = tmp_path / "train-labels-idx1-ubyte.gz"
  path.write_bytes(gzip.compress(encode_idx(_LABELS) + b"x"))
  with pytest.raises(Exception, match="byte") as error:
    _shards(tmp_path)
  assert f"{path}: byte 18: 10 labels end here, but the file goes on" in user_sentence(error.value)


@pytest.mark.parametrize("gz", [False, True])
def test_counts_that_differ(tmp_path, gz):
  _write_split(tmp_path, gz=gz, labels=_LABELS[:9])
  with pytest.raises(InputError, match=r"byte 4: 9 labels, but .* has 10 images"):
    find_idx_splits(str(tmp_path), ["training"])


def test_labels_given_as_images(tmp_path):
  _write_split(tmp_path)
  shutil.copy(tmp_path / "train-labels-idx1-ubyte", tmp_path / "train-images-idx3-ubyte")
  with pytest.raises(InputError, match=r"train-images-idx3-ubyte: byte 3: 1 dimensions \(labels\)"):
    find_idx_splits(str(tmp_path), ["training"])


def test_no_images_is_an_error(tmp_path):
  _write_split(tmp_path, pixels=_PIXELS[:0], labels=_LABELS[:0])
  with pytest.raises(InputError, match="0 images: there is nothing to read"):
    find_idx_splits(str(tmp_path), ["training"])


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_damaged_gzip_data_names_the_file_that_is_damaged(tmp_path, kind):
  pixels = np.random.default_rng(1).integers(0, 256, (5000, 4, 3), np.uint8)
  _write_split(tmp_path, gz=True, pixels=pixels, labels=pixels[:, 0, 0].copy())
  path = tmp_path / f"train-{kind}-ubyte.gz"
  path.write_bytes(path.read_bytes()[:-200])
  with pytest.raises(Exception, match="byte") as error:
    _shards(tmp_path, images_per_shard=1000)
  assert user_sentence(error.value).startswith(f"{path}: byte ")
  assert "the gzip data is damaged" in user_sentence(error.value)


def test_a_file_is_gzip_if_it_begins_so_whatever_its_name(tmp_path):
  _write_split(tmp_path, gz=True)
  (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(encode_idx(_LABELS))
  (tmp_path / "train-images-idx3-ubyte.gz").rename(tmp_path / "train-images-idx3-ubyte")
  (pair,) = find_idx_splits(str(tmp_path), ["training"])
  assert (pair.images.is_gzip, pair.labels.is_gzip) == (True, False)
  images, labels = _shards(tmp_path)[0].inputs[0].read_arrays()
  np.testing.assert_array_equal(images, _PIXELS[:4])
  assert labels == ("0", "1", "2", "3")


def test_a_file_that_shrinks_while_the_job_runs(tmp_path):
  _write_split(tmp_path)
  last = _shards(tmp_path)[-1]
  path = tmp_path / "train-images-idx3-ubyte"
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(InputError, match="byte 135: the file ends here: it was truncated while the job ran"):
    last.inputs[0].read_arrays()


def test_fails_before_a_worker_starts():
  with pytest.raises(ValueError, match="0 pairs"):
    PlanIdxShards([])


def test_keys_are_laid_out_as_the_articles_script_does():
  assert image_key("training", 5, 17, "jpg") == "training/5/17.jpg"
