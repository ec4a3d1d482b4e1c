"""Records into memory: every vector in its place, transformed, in the right split; and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.trainer.fit.data import load_bottlenecks, load_transform
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import (
  BOTTLENECK,
  LABEL,
  Bottleneck,
  decode_bottleneck,
  encode_bottleneck,
  shard_name,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import frame, read_records
from beam_retrain.transforms.core.run.stats import SplitCounts, Stats

LABELS = ["black", "grey", "white"]
PERCENTAGES = SplitPercentages(10, 20)
COUNTS = {"training": 2500, "testing": 70}  # more than two batches of records


def make_bottlenecks(split: str, count: int, dimensions: int = 4) -> list[Bottleneck]:
  rng = np.random.default_rng(len(split))
  return [
    Bottleneck(
      key=f"{split}/{number}.png",
      label=LABELS[number % 3],
      class_index=number % 3,
      vector=rng.normal(size=dimensions).astype(np.float32),
      format="png",
      height=28,
      width=28,
      sha256="0" * 64,
    )
    for number in range(count)
  ]


def write_folder(folder: Path, splits: dict[str, list[Bottleneck]], shards: int = 3) -> None:
  """Lays out what the trainer reads of a `bottlenecks` folder, but for the transform graph."""
  (folder / "records").mkdir(parents=True)
  for split, entries in splits.items():
    for index in range(shards):
      payloads = [frame(encode_bottleneck(entry)) for entry in entries[index::shards]]
      (folder / "records" / shard_name(split, index, shards)).write_bytes(b"".join(payloads))
  counts = {split: SplitCounts(len(entries), len(entries), 0, 1, {}) for split, entries in splits.items()}
  total = sum(len(entries) for entries in splits.values())
  (folder / "stats.json").write_text(Stats(counts, {}, total, total, 0, 0.0).to_json())


@pytest.fixture
def splits() -> dict[str, list[Bottleneck]]:
  return {split: make_bottlenecks(split, count) for split, count in COUNTS.items()}


def load(folder: Path, percentages: SplitPercentages = PERCENTAGES, dimensions: int = 4, labels=LABELS):
  return load_bottlenecks(
    str(folder), labels=labels, dimensions=dimensions, percentages=percentages, transform=lambda batch: batch * 2
  )


def test_every_record_is_in_its_place(tmp_path, splits):
  write_folder(tmp_path, splits)
  data = load(tmp_path)
  in_files = [entry for split in splits for index in range(3) for entry in splits[split][index::3]]
  np.testing.assert_array_equal(data.vectors, 2 * np.stack([entry.vector for entry in in_files]))
  np.testing.assert_array_equal(data.classes, [entry.class_index for entry in in_files])
  assert (data.vectors.dtype, data.classes.dtype) == (np.float32, np.int32)
  expected = [PERCENTAGES.split_of(entry.key, given=entry.key.split("/")[0]) for entry in in_files]
  for split, rows in data.rows.items():
    assert rows.tolist() == [row for row, name in enumerate(expected) if name == split]
  assert len(data.rows["testing"]) == 70
  assert 0.15 < len(data.rows["validation"]) / 2500 < 0.25
  assert data.counts("testing").tolist() == [24, 23, 23]


def test_the_checksum_is_of_the_data_not_of_the_sharding(tmp_path, splits):
  def checksum(name: str, **changes) -> str:
    folder = tmp_path / name
    write_folder(folder, {**splits, **changes}, shards=1)
    return load(folder).sha256

  changed = make_bottlenecks("testing", 70)
  changed[69].vector[3] += 1
  assert checksum("a") == checksum("b")
  assert checksum("a2", testing=changed) != checksum("c")


def test_a_damaged_record_is_named(tmp_path, splits):
  write_folder(tmp_path, splits)
  path = tmp_path / "records" / shard_name("training", 1, 3)
  data = bytearray(path.read_bytes())
  data[-20] ^= 1
  path.write_bytes(data)
  with pytest.raises(InputError, match=r"training-00001-of-00003.tfrecord is damaged: the record at byte \d+"):
    load(tmp_path)


@pytest.mark.parametrize(
  ("change", "sentence"),
  [
    (lambda folder: (folder / "records" / shard_name("training", 1, 3)).unlink(), "2 of 3 training shards"),
    (
      lambda folder: (folder / "records" / shard_name("testing", 1, 3)).write_bytes(b""),
      "holds 47 testing records, but its stats.json says 70",
    ),
    (
      lambda folder: (folder / "records" / shard_name("testing", 1, 3)).write_bytes(
        (folder / "records" / shard_name("training", 1, 3)).read_bytes()
      ),
      "holds more than 70 testing records",
    ),
  ],
)
def test_lost_and_added_records_are_found(tmp_path, splits, change, sentence):
  write_folder(tmp_path, splits)
  change(tmp_path)
  with pytest.raises(InputError, match=sentence):
    load(tmp_path)


def test_records_of_another_kind_are_refused(tmp_path, splits):
  write_folder(tmp_path, splits)
  with pytest.raises(InputError, match="not bottlenecks of 5 numbers"):
    load(tmp_path, dimensions=5)
  with pytest.raises(InputError, match=r"class index beyond labels\.txt"):
    load(tmp_path, labels=LABELS[:2])


def test_a_class_without_images_is_an_error_before_training(tmp_path, splits):
  write_folder(tmp_path, splits)
  with pytest.raises(InputError, match=r"no validation image for 3 of 3 labels .'black', 'grey', 'white'.*--valid"):
    load(tmp_path, SplitPercentages(10, 0))
  with pytest.raises(InputError, match=r"no training image for 1 of 4 labels .'pink'.: add images"):
    load(tmp_path, labels=[*LABELS, "pink"])


def test_transform_graph_is_the_analysis_of_the_training_records(bottlenecks_folder):
  transform = load_transform(str(bottlenecks_folder / "transform"), LABELS, 96)
  raw = {"training": [], "testing": []}
  for path in sorted((bottlenecks_folder / "records").glob("*.tfrecord")):
    with path.open("rb") as file:
      raw[path.name.split("-")[0]] += [decode_bottleneck(record).vector for record in read_records(file, path.name)]
  training, testing = np.stack(raw["training"]), np.stack(raw["testing"])
  deviation = training.std(axis=0, dtype=np.float64)
  expected = (testing - training.mean(axis=0, dtype=np.float64)) / np.where(deviation == 0, 1, deviation)
  np.testing.assert_allclose(transform(tf.constant(testing)), expected, rtol=1e-3, atol=1e-3)

  whole = tf.saved_model.load(str(bottlenecks_folder / "transform" / "transform_fn")).transform_fn
  by_transform = whole({BOTTLENECK: tf.constant(testing), LABEL: tf.fill([len(testing)], "white")})
  # Not to the last bit: TensorFlow may turn a division by a constant into a multiplication.
  np.testing.assert_allclose(transform(tf.constant(testing)), by_transform[BOTTLENECK], rtol=1e-6, atol=1e-6)
  assert not [node.op for node in transform.graph.as_graph_def().node if "Table" in node.op]
  assert not transform.captured_inputs


def test_a_transform_graph_of_other_labels_is_refused(bottlenecks_folder, tmp_path):
  folder = str(bottlenecks_folder / "transform")
  with pytest.raises(InputError, match="numbers the labels differently"):
    load_transform(folder, ["grey", "black", "white"], 96)
  with pytest.raises(InputError, match="cannot be used as a transform graph"):
    load_transform(folder, LABELS, 101)
  with pytest.raises(InputError, match="cannot be used as a transform graph"):
    load_transform(str(tmp_path), LABELS, 96)
