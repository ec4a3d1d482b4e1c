"""Has tensorflow-transform make the transform graph, once for a machine.

Trainer, evaluation and exported model use the resulting graph. Import this only where it runs: tensorflow_transform
switches tf.keras to Keras 2 for the whole process.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow.core.framework import graph_pb2, types_pb2
from tensorflow.core.protobuf import fingerprint_pb2, saved_model_pb2
from tensorflow_transform.tf_metadata import schema_utils
from tfx_bsl.public import tfxio

from beam_retrain.transforms.core.models.moments import BATCH_SIZE
from beam_retrain.transforms.core.models.transform_graph import FINGERPRINT, GRAPH, TransformTemplate, table_name
from beam_retrain.transforms.core.records.example import encode_example
from beam_retrain.transforms.core.records.schema import BOTTLENECK, CLASS_INDEX, LABEL
from beam_retrain.transforms.core.system.plain_path import plain_root
from beam_retrain.transforms.core.system.tensorflow_internals import write_fingerprint


def make_template(dimensions: int, labels: Sequence[str]) -> TransformTemplate:
  """Makes the graph for made-up bottlenecks, and finds their moments in it."""
  vectors = np.random.default_rng(0).normal(size=(max(3, len(labels)), dimensions)).astype(np.float32)
  with tempfile.TemporaryDirectory(prefix="beam-retrain-", dir=plain_root()) as folder:
    analyze(vectors, labels, folder)
    root = Path(folder, "transform")
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
  graph = saved_model_pb2.SavedModel.FromString(files[GRAPH]).meta_graphs[0].graph_def
  found = [node.attr["value"].tensor for node in graph.node if node.op == "Const"]
  pair = [tf.make_ndarray(each) for each in found if each.dtype == types_pb2.DT_FLOAT]
  mean, variance = pair if np.allclose(pair[0], vectors.mean(axis=0), atol=1e-3) else pair[::-1]
  fingerprint = fingerprint_pb2.FingerprintDef.FromString(files[FINGERPRINT])
  for name in ("saved_model_checksum", "graph_def_program_hash", "uuid"):
    fingerprint.ClearField(name)
  files[FINGERPRINT] = fingerprint.SerializeToString(deterministic=True)
  return TransformTemplate(files, _program(graph), mean.tobytes() + variance.tobytes(), labels)


def analyze(vectors: np.ndarray, labels: Sequence[str], folder: str) -> None:
  """Writes `transform/`, a `tft.TFTransformOutput`, into a folder with a plain path.

  Args:
    vectors: float32 [N, D], of all labels in turn: the graph has the number of those that it has seen, too. (In ours
      it is that of all labels, even where one has no training image. Nothing reads it.)
    labels: class index -> label; the order of the vocabulary.
  """
  output = os.path.join(folder, "transform")
  spec = {
    BOTTLENECK: tf.io.FixedLenFeature([vectors.shape[1]], tf.float32),
    LABEL: tf.io.FixedLenFeature([], tf.string),
  }
  source = tfxio.TFExampleBeamRecord("inmem", ["beam_retrain"], schema=schema_utils.schema_from_feature_spec(spec))

  def preprocess(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    index = tft.compute_and_apply_vocabulary(
      inputs[LABEL], vocab_filename="labels", reserved_tokens=list(labels), default_value=-1
    )
    return {BOTTLENECK: tft.scale_to_z_score(inputs[BOTTLENECK], elementwise=True), CLASS_INDEX: index}

  pairs = zip(vectors, itertools.cycle(labels), strict=False)
  records = [encode_example({BOTTLENECK: vector, LABEL: label}) for vector, label in pairs]
  with (
    beam.Pipeline("FnApiRunner", PipelineOptions(flags=[])) as root,
    tft_beam.Context(temp_dir=os.path.join(folder, "temp")),
  ):
    batches = root | beam.Create(records, reshuffle=False) | source.BeamSource(batch_size=BATCH_SIZE)
    transform = (batches, source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(preprocess)
    _ = transform | tft_beam.WriteTransformFn(output)
  _name_table(os.path.join(output, tft.TFTransformOutput.TRANSFORM_FN_DIR), labels)


def _name_table(folder: str, labels: Sequence[str]) -> None:
  """Names the graph's label table after its labels.

  tensorflow-transform names it after the scratch folder, so that each folder would give other bytes.
  """
  path = Path(folder, "saved_model.pb")
  model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
  for graph in (meta.graph_def for meta in model.meta_graphs):
    for node in itertools.chain(graph.node, *(function.node_def for function in graph.library.function)):
      if node.op == "HashTableV2":
        node.attr["shared_name"].s = table_name(labels)
  path.write_bytes(model.SerializeToString(deterministic=True))
  write_fingerprint(folder)


def _program(graph: graph_pb2.GraphDef) -> bytes:
  """Returns what TensorFlow's fingerprint takes of a graph.

  As `SimpleDelete` in tensorflow/core/graph/regularization/simple_delete.cc: without functions and versions, the
  numbers behind their names, what depends on the device, and constant texts.
  """
  for node in graph.node:
    if node.op in ("PartitionedCall", "StatefulPartitionedCall"):
      node.attr["f"].func.name = re.sub(r"\d+$", "", node.attr["f"].func.name)
      if "config_proto" in node.attr:
        node.attr["config_proto"].s = b""
    if node.op == "Const" and node.attr["dtype"].type == types_pb2.DT_STRING:
      node.attr["value"].Clear()
  for part in (graph.library, graph.versions):
    part.Clear()
    part.SetInParent()
  program: bytes = graph.SerializeToString(deterministic=True)
  return program
