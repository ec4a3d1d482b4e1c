"""Prepares and runs trunks with TensorFlow.

TensorFlow would run its graph optimizer for seconds in every process, at the first call. Here it runs once, ahead of
time, and its result is run with the optimizer switched off.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, rewriter_config_pb2

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.runtimes.trunk_info import PreparedInfo
from beam_retrain.transforms.core.runtimes.variant import BFLOAT16, Variant
from beam_retrain.transforms.core.system.tensorflow_internals import optimize_graph

_GRAPH_FILE = "graph.pb"


def versions(variant: Variant) -> dict[str, str]:
  """Returns package -> version, for what a preparation depends on."""
  return {"tensorflow": tf.__version__}


def write(frozen: Any, variant: Variant, folder: str, sample: Any = None) -> dict[str, str]:
  """Writes the graph as optimized by TensorFlow.

  Batch norms are folded into convolutions, and input scaling into their weights where that is exact; biases and
  activations are fused. For bfloat16, costly operations are cast.

  Args:
    frozen: concrete function float32 [N, S, S, 3] -> float32 [N, D], without variables.

  Returns:
    `input` and `output`: the tensors' names, see `PreparedInfo`.

  Raises:
    InputError: no operation can be cast to bfloat16.
  """
  input_name, result = frozen.inputs[0].name, frozen.outputs[0].name
  graph = _optimize(frozen.graph.as_graph_def(), result, variant.precision == BFLOAT16)
  Path(folder, _GRAPH_FILE).write_bytes(graph.SerializeToString())
  return {"input": input_name, "output": result}


def _optimize(definition: Any, result: str, to_bfloat16: bool) -> Any:
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(definition, name="")
  meta = tf.compat.v1.train.export_meta_graph(graph_def=definition, graph=graph)
  # Declares a fetch: the optimizer drops nodes that no fetch needs.
  meta.collection_def["train_op"].CopyFrom(
    meta_graph_pb2.CollectionDef(node_list=meta_graph_pb2.CollectionDef.NodeList(value=[result]))
  )
  config = tf.compat.v1.ConfigProto()
  options = config.graph_options.rewrite_options
  options.min_graph_nodes = -1
  options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.TWO
  options.remapping = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
  if to_bfloat16:
    options.auto_mixed_precision_onednn_bfloat16 = rewriter_config_pb2.RewriterConfig.ON
  optimized = optimize_graph(config, meta)
  for node in optimized.node:
    if node.op == "Const":
      # Cast constants are stored as lists of numbers, which take seconds to read; bytes do not.
      tensor = node.attr["value"].tensor
      tensor.CopyFrom(tf.make_tensor_proto(tf.make_ndarray(tensor)))
  if to_bfloat16 and not any(node.attr["T"].type == tf.bfloat16.as_datatype_enum for node in optimized.node):
    raise InputError("TensorFlow cannot compute any part of this trunk with bfloat16: use --precision float32.")
  return optimized


def load(folder: str, info: PreparedInfo, threads: int, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
  """Returns float32 [N, S, S, 3] -> float32 [N, D], without padding."""
  config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  definition = tf.compat.v1.GraphDef.FromString(Path(folder, _GRAPH_FILE).read_bytes())
  # A session: a function would copy all constants several times, and cannot disable the optimizer by itself.
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(definition, name="")
  session = tf.compat.v1.Session(graph=graph, config=config)
  run: Callable[[np.ndarray], np.ndarray] = session.make_callable(info.output, feed_list=[info.input])
  return run
