"""The operations that a frozen graph may have: those of image classifiers, and nothing that leaves the process."""

from __future__ import annotations

import re

import pytest
import tensorflow as tf

from beam_retrain.transforms.core.compat.allowed_operations import ALLOWED, allowed_part, find_foreign
from beam_retrain.transforms.core.compat.graph_call import parse_graph

# Of files, the network, Python, the terminal, other processes and what outlives a call.
_FOREIGN = re.compile(
  "File|Reader|Save|Restore|Py|Print|Debug|Iterator|Dataset|Table|Send|Recv|Remote|Rpc|Load|Summary|Record|Variable|Queue"
  "|Barrier|Stage|Assign|Apply|Custom|Tpu|TPU|Xla|XLA|Jit|Cache|Checkpoint|ImmutableConst|Lookup|Mutex|Graph|Dump"
)
_NOT_ALLOWED = """
  AnonymousIterator AudioSummary CollectiveReduceV2 DebugIdentity DebugIdentityV2 DebugNumericSummaryV2 EagerPyFunc
  FixedLengthRecordReaderV2 HashTableV2 ImmutableConst InitializeTableFromTextFileV2 IteratorGetNext LookupTableFindV2
  MatchingFiles MergeV2Checkpoints OneShotIterator Print PrintV2 PyFunc PyFuncStateless ReadFile ReadVariableOp
  RemoteCall RestoreV2 SaveV2 Send SymbolicGradient TextLineDataset TFRecordDataset VarHandleOp WholeFileReaderV2
  WriteFile WriteSummary XlaSend"""
_MODELS = ("MobileNet", "MobileNetV2", "ResNet50")
# classify_image_graph_def.pb, the Inception v3 that retrain.py fetched in 2015, and what retrain.py added to it.
_INCEPTION_OF_2015 = """
  AvgPool BatchNormWithGlobalNormalization BiasAdd Cast CheckNumerics Concat Const Conv2D DecodeJpeg ExpandDims Identity
  MatMul MaxPool Mul Relu Reshape ResizeBilinear Softmax Sub"""
_OF_RETRAIN_PY = """
  Add AddV2 Cast Const DecodeJpeg Dequantize ExpandDims Identity MatMul Mul Placeholder PlaceholderWithDefault
  QuantizeV2 FakeQuantWithMinMaxVars ResizeBilinear Reshape Squeeze Softmax Sub"""
# Of the mobilenet_v1_*_quant and slim graphs of 2017 and 2018.
_OF_SLIM = """
  Add AvgPool BatchToSpaceND BiasAdd ConcatV2 Const Conv2D DepthwiseConv2dNative FakeQuantWithMinMaxVars FusedBatchNorm
  Identity LRN MatMul MaxPool Mean Pad Placeholder Relu Relu6 Reshape Rsqrt Shape Softmax SpaceToBatchND Squeeze Sub"""


def operations(graph: tf.compat.v1.GraphDef) -> set[str]:
  return {node.op for nodes in (graph.node, *(body.node_def for body in graph.library.function)) for node in nodes}


def test_every_allowed_operation_exists_and_none_leaves_the_process():
  assert [name for name in sorted(ALLOWED) if not hasattr(tf.raw_ops, name)] == []
  assert [name for name in ALLOWED if _FOREIGN.search(name)] == []


def test_what_leaves_the_process_is_not_allowed():
  assert set(_NOT_ALLOWED.split()) & ALLOWED == set()


@pytest.mark.parametrize("names", [_INCEPTION_OF_2015, _OF_RETRAIN_PY, _OF_SLIM])
def test_graphs_of_the_time_are_allowed(names):
  assert set(names.split()) <= ALLOWED


@pytest.mark.parametrize("name", _MODELS)
def test_known_networks_are_allowed(name):
  import keras

  # Their operations do not depend on the size, and those on variables become constants.
  network = getattr(keras.applications, name)(weights=None, pooling="avg", include_top=False, input_shape=(32, 32, 3))
  call = tf.function(lambda images: tf.nn.softmax(network(images, training=False)))
  graph = call.get_concrete_function(tf.TensorSpec([None, 32, 32, 3])).graph.as_graph_def()
  assert find_foreign(graph.node, graph) == {"ReadVariableOp"}


@pytest.mark.parametrize("name", ["retrained_graph.pb", "embed", "score_images", "preprocess"])
def test_our_own_graphs_are_allowed(name, trained_model, tiny_trunk):
  """The trunk is an Inception v3."""
  if name.endswith(".pb"):
    graph = parse_graph((trained_model / name).read_bytes(), name)
  elif name == "preprocess":
    model = tf.saved_model.load(str(trained_model / "saved_model"))
    graph = model.preprocess.concrete_functions[0].graph.as_graph_def()
  else:
    model = tf.saved_model.load(str(tiny_trunk if name == "embed" else trained_model / "saved_model"))
    graph = getattr(model, name).concrete_functions[0].graph.as_graph_def()
  assert find_foreign(graph.node, graph) == set()
  assert len(operations(graph)) > 5


def test_what_depends_on_a_foreign_operation_is_named_with_it():
  with tf.Graph().as_default() as built:
    read = tf.io.read_file("/dev/null", name="read")
    tf.strings.length(read, name="length")
    with tf.control_dependencies([tf.raw_ops.PrintV2(input="a")]):
      tf.constant(1.0, name="after")
    tf.constant(1.0, name="alone")
  part, others = allowed_part(built.as_graph_def(), fed="alone")
  assert "alone" in {node.name for node in part.node}
  assert others["read"] == others["length"] == {"ReadFile"}
  assert others["after"] == {"PrintV2"}
  assert not {"read", "length", "after"} & {node.name for node in part.node}
