"""Computes z-scores and the label vocabulary with tensorflow-transform.

Trainer, evaluation and exported model use the resulting graph. Import this only where it runs: tensorflow_transform
switches tf.keras to Keras 2 for the whole process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_transform.tf_metadata import schema_utils
from tfx_bsl.public import tfxio

from beam_retrain.transforms.core.records.schema import BOTTLENECK, CLASS_INDEX, ENCODED, IMAGE_RECORD, LABEL, TRAINING
from beam_retrain.transforms.core.records.shards import ShardReport
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.system.plain_path import is_plain
from beam_retrain.transforms.core.system.tensorflow_internals import write_fingerprint
from beam_retrain.transforms.io import files
from beam_retrain.transforms.io.transfer import put_folder

VOCABULARY = "labels"
_BATCH_SIZE = 1024


def feature_spec(dimensions: int) -> dict[str, tf.io.FixedLenFeature]:
  """Returns tf.data's parsing specification of a bottleneck record."""
  scalars = {"bytes": tf.string, "int64": tf.int64}
  spec = {name: tf.io.FixedLenFeature([], scalars[kind]) for name, kind in IMAGE_RECORD.items() if name != ENCODED}
  return {**spec, BOTTLENECK: tf.io.FixedLenFeature([dimensions], tf.float32)}


def record_schema_text(dimensions: int) -> str:
  """Returns the schema of a bottleneck record, as `schema.pbtxt`."""
  text: str = text_format.MessageToString(schema_utils.schema_from_feature_spec(feature_spec(dimensions)))
  return text


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class AnalyzeBottlenecks(beam.PTransform):
  """Writes a `tft.TFTransformOutput` folder.

  PCollection[ShardReport] -> PCollection of its path. Reads the training shards again, so that no vector crosses a
  shuffle.

  Attributes:
    temp_folder: scratch folder that all workers share. If `output` is remote or has no plain path, the graph is
      written there and copied: TensorFlow cannot write to it.
    labels: class index -> label; the order of the vocabulary.
  """

  records_folder: str
  output: str
  temp_folder: str
  dimensions: int
  labels: Sequence[str]

  def expand(self, reports: beam.PCollection) -> beam.PCollection:
    spec = feature_spec(self.dimensions)
    schema = schema_utils.schema_from_feature_spec({name: spec[name] for name in (BOTTLENECK, LABEL)})
    source = tfxio.TFExampleBeamRecord("inmem", ["beam_retrain"], schema=schema)
    batches = (
      reports
      # ShardReport
      | "TrainingShardPaths" >> beam.FlatMap(_training_path, self.records_folder, self.temp_folder)
      # str
      # Prevents fusion with the step that writes the records.
      | "SpreadShards" >> beam.Reshuffle()
      # str
      | "ReadTrainingShards" >> beam.FlatMap(_read_shard)
      # bytes
      | "DecodeBatches" >> source.BeamSource(batch_size=_BATCH_SIZE)
    )  # pa.RecordBatch
    is_put = files.is_local(self.temp_folder) and not (files.is_local(self.output) and is_plain(self.output))
    made = files.join(self.temp_folder, "made") if is_put else self.output
    with tft_beam.Context(temp_dir=self.temp_folder):
      transform = (batches, source.TensorAdapterConfig()) | "Analyze" >> tft_beam.AnalyzeDataset(self._preprocess)
      written = transform | "WriteTransform" >> tft_beam.WriteTransformFn(made)
    return (
      reports.pipeline
      | "TransformFolder" >> beam.Create([self.output])
      | "WaitForTransform" >> beam.Map(_put, made, self.labels, beam.pvalue.AsList(written))
    )  # str

  def _preprocess(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    index = tft.compute_and_apply_vocabulary(
      inputs[LABEL], vocab_filename=VOCABULARY, reserved_tokens=list(self.labels), default_value=-1
    )
    return {BOTTLENECK: tft.scale_to_z_score(inputs[BOTTLENECK], elementwise=True), CLASS_INDEX: index}


# `*_` has no annotation: Beam takes one for the type of the whole tuple.
def _put(folder: str, made: str, labels: Sequence[str], *_) -> str:  # type: ignore[no-untyped-def]
  _name_table(files.join(made, tft.TFTransformOutput.TRANSFORM_FN_DIR), labels)
  if made != folder:
    put_folder(made, folder)
  return folder


def _name_table(folder: str, labels: Sequence[str]) -> None:
  """Names the graph's label table after its labels.

  tensorflow-transform names it after the scratch folder, so that each folder would give other bytes.
  """
  path = files.join(folder, "saved_model.pb")
  model = saved_model_pb2.SavedModel.FromString(files.read_bytes(path))
  for graph in (meta.graph_def for meta in model.meta_graphs):
    for node in itertools.chain(graph.node, *(function.node_def for function in graph.library.function)):
      if node.op == "HashTableV2":
        node.attr["shared_name"].s = hashlib.sha256("\n".join(labels).encode()).hexdigest().encode()
  files.write_bytes(path, model.SerializeToString(deterministic=True))
  write_fingerprint(folder)


def _training_path(report: ShardReport, folder: str, temp_folder: str) -> list[str]:
  if not files.is_local(folder):
    files.check_seen(temp_folder)
  return [files.join(folder, report.file)] if report.split == TRAINING and report.outputs else []


def _read_shard(path: str) -> Iterator[bytes]:
  with files.open_to_read(path) as file:
    yield from read_records(file, path)
