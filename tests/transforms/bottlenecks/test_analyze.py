"""The transform folder, checked against numpy, and against tensorflow-transform's own for the same bottlenecks."""

import io

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.transforms.bottlenecks.analyze import AnalyzeBottlenecks, Rows, find_template, plan_parts
from beam_retrain.transforms.bottlenecks.transform_template import analyze
from beam_retrain.transforms.core.models.moments import BATCH_SIZE, merge, of_batch
from beam_retrain.transforms.core.models.transform_graph import FINGERPRINT, GRAPH
from beam_retrain.transforms.core.records.schema import Bottleneck, encode_bottleneck
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from beam_retrain.transforms.core.system.tensorflow_internals import write_fingerprint
from beam_retrain.transforms.evaluation.output_diff import difference_of_graphs
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.beam_internals import options_in_use
from tests.helpers import file_contents

_LABELS = ["ant", "bee", "zebra"]
_TRUNK = TrunkInfo("made up", "1" * 64, 75, 6, "1" * 64)


def bottlenecks(count: int, seed: int) -> list[Bottleneck]:
  rng = np.random.default_rng(seed)
  found = []
  for number in range(count):
    index = 2 if number % 4 else number // 4 % 2  # zebra is by far the commonest: order is not by frequency
    vector = rng.normal(5, 3, 6).astype(np.float32)
    vector[3] = 1.5  # a dimension that never varies
    found.append(Bottleneck(f"{number}.png", _LABELS[index], index, vector, "png", 28, 28, "0" * 64))
  return found


def report_of(split: str, index: int, count: int) -> ShardReport:
  return ShardReport(f"{split}-{index:05d}-of-00002.tfrecord", split, count, count, 0, "", "", {})


@pytest.fixture(scope="module")
def transform(tmp_path_factory):
  folder = tmp_path_factory.mktemp("analyze")
  reports = [report_of("training", 1, 200), report_of("training", 0, 1100), report_of("testing", 0, 100)]
  for seed, report in enumerate(reports):
    records = map(encode_bottleneck, bottlenecks(report.outputs, seed))
    (folder / report.file).write_bytes(b"".join(map(frame, records)))
  with beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions(flags=["--runner=FnApiRunner"])) as root:
    _ = (
      root
      | beam.Create(reports)
      | AnalyzeBottlenecks(records_folder=str(folder), output=str(folder / "transform"), trunk=_TRUNK, labels=_LABELS)
    )
  return folder / "transform"


def test_what_a_killed_worker_left_is_deleted_and_no_training_images_are_no_fault(tmp_path):
  left = tmp_path / "transform" / "transform_fn" / "saved_model.pb.tmp-0123"
  left.parent.mkdir(parents=True)
  left.write_bytes(b"")
  with beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions(flags=["--runner=FnApiRunner"])) as root:
    _ = (
      root
      | beam.Create([report_of("testing", 0, 100)])
      | AnalyzeBottlenecks(
        records_folder=str(tmp_path), output=str(tmp_path / "transform"), trunk=_TRUNK, labels=_LABELS
      )
    )
  assert not left.exists()
  loaded = tf.saved_model.load(str(tmp_path / "transform" / "transform_fn")).transform_fn
  scaled = loaded({"bottleneck": tf.zeros([1, 6]), "image/class/text": tf.constant(["ant"])})["bottleneck"]
  assert np.isfinite(scaled).all()


@pytest.fixture(scope="module")
def analyzed(transform):
  return tf.saved_model.load(str(transform / "transform_fn")).transform_fn


def test_no_file_holds_the_folders_path(transform):
  contents = file_contents(transform)
  assert [name for name, data in contents.items() if str(transform.parent).encode() in data] == []
  assert len(contents) >= 6


def test_z_score_is_of_the_training_shards_alone(analyzed):
  training = np.stack([one.vector for one in bottlenecks(200, 0) + bottlenecks(1100, 1)]).astype(np.float64)
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


@pytest.mark.parametrize(
  ("rows", "dimensions", "labels"),
  [
    (2100, 6, _LABELS),  # the shape that the tests above have made a template of
    (15, 2048, ["é", 'a "b"', "c\\d", "[x]*", "日本", "e, f"]),
    (150, 21, [str(number) for number in range(130)]),
  ],
)
def test_the_folder_is_the_one_that_tensorflow_transform_writes(rows, dimensions, labels, tmp_path):
  """Numbers to the bit, and every other file byte by byte; function names in the graph have running numbers."""
  vectors = np.random.default_rng(rows).normal(0.4, 0.7, (rows, dimensions)).astype(np.float32)
  analyze(vectors, labels, str(tmp_path))
  theirs = file_contents(tmp_path / "transform")
  trunk = TrunkInfo("made up", "2" * 64, 75, dimensions, "2" * 64)
  batches = [vectors[start : start + BATCH_SIZE] for start in range(0, rows, BATCH_SIZE)]
  ours = dict(find_template(trunk, len(labels)).fill(merge(map(of_batch, batches)), labels))
  assert ours.keys() == theirs.keys()
  assert difference_of_graphs(io.BytesIO(ours[GRAPH]), io.BytesIO(theirs[GRAPH]), GRAPH, lambda _: None) is None
  assert {name for name in ours if ours[name] != theirs[name]} <= {GRAPH, FINGERPRINT}
  folder = tmp_path / "ours"
  for name, data in ours.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
  written = tf.saved_model.experimental.read_fingerprint(str(folder / "transform_fn"))
  (folder / FINGERPRINT).unlink()
  write_fingerprint(str(folder / "transform_fn"))
  made = tf.saved_model.experimental.read_fingerprint(str(folder / "transform_fn"))
  assert made.singleprint() == written.singleprint()


def test_parts_are_of_whole_batches_in_the_order_of_the_shards():
  reports = [report_of("training", 1, 70_000), report_of("testing", 0, 10), report_of("training", 0, 100)]
  first, second = (report.file for report in (reports[2], reports[0]))
  assert list(plan_parts(reports)) == [
    (0, [Rows(first, 0, 100), Rows(second, 0, 65_436)]),
    (1, [Rows(second, 65_436, 70_000)]),
  ]


def test_making_a_template_leaves_the_options_of_object_stores(monkeypatch, tmp_path):
  monkeypatch.setenv("BEAM_RETRAIN_CACHE_DIR", str(tmp_path))
  options = PipelineOptions(flags=["--s3_endpoint_url=http://127.0.0.1:9"])
  files.use_options(options)
  try:
    find_template(_TRUNK, 3)
    assert options_in_use() is options
  finally:
    files.use_options()
