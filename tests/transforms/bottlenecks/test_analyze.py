"""tensorflow-transform's graph, checked against numpy."""

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf

from beam_retrain.transforms.bottlenecks.analyze import AnalyzeBottlenecks
from beam_retrain.transforms.core.records.schema import Bottleneck, encode_bottleneck
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.records.tfrecord import frame
from tests.helpers import file_contents

_LABELS = ["ant", "bee", "zebra"]


def bottlenecks(count: int, seed: int) -> list[Bottleneck]:
  rng = np.random.default_rng(seed)
  found = []
  for number in range(count):
    index = 2 if number % 4 else number // 4 % 2  # zebra is by far the commonest: order is not by frequency
    vector = rng.normal(5, 3, 6).astype(np.float32)
    vector[3] = 1.5  # a dimension that never varies
    found.append(Bottleneck(f"{number}.png", _LABELS[index], index, vector, "png", 28, 28, "0" * 64))
  return found


@pytest.fixture(scope="module")
def transform(tmp_path_factory):
  folder = tmp_path_factory.mktemp("analyze")
  reports = []
  for split, index, count in (("training", 0, 300), ("training", 1, 200), ("testing", 0, 100)):
    name = f"{split}-{index:05d}-of-00002.tfrecord"
    (folder / name).write_bytes(b"".join(frame(encode_bottleneck(one)) for one in bottlenecks(count, len(reports))))
    reports.append(ShardReport(name, split, count, count, 0, "", "", {}))
  with beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions(flags=["--runner=FnApiRunner"])) as root:
    _ = (
      root
      | beam.Create(reports)
      | AnalyzeBottlenecks(
        records_folder=str(folder),
        output=str(folder / "transform"),
        temp_folder=str(folder / "temp"),
        dimensions=6,
        labels=_LABELS,
      )
    )
  return folder / "transform"


@pytest.fixture(scope="module")
def analyzed(transform):
  return tf.saved_model.load(str(transform / "transform_fn")).transform_fn


def test_no_file_holds_the_folders_path(transform):
  contents = file_contents(transform)
  assert [name for name, data in contents.items() if str(transform.parent).encode() in data] == []
  assert len(contents) >= 6


def test_z_score_is_of_the_training_shards_alone(analyzed):
  training = np.stack([one.vector for one in bottlenecks(300, 0) + bottlenecks(200, 1)]).astype(np.float64)
  testing = bottlenecks(100, 2)
  raw = np.stack([one.vector for one in testing])
  result = analyzed(
    {
      "bottleneck": tf.constant(raw),
      "image/class/text": tf.constant([one.label for one in testing]),
    }
  )
  deviation = training.std(axis=0)
  expected = (raw - training.mean(axis=0)) / np.where(deviation == 0, 1, deviation)
  np.testing.assert_allclose(result["bottleneck"].numpy(), expected, atol=1e-4)
  np.testing.assert_array_equal(result["bottleneck"].numpy()[:, 3], 0)


def test_the_vocabulary_has_the_label_lists_order(analyzed):
  result = analyzed(
    {
      "bottleneck": tf.zeros([4, 6]),
      "image/class/text": tf.constant(["zebra", "ant", "bee", "unheard of"]),
    }
  )
  np.testing.assert_array_equal(result["image/class/label"].numpy(), [2, 0, 1, -1])
