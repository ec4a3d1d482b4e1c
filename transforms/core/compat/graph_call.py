"""Determines how to call a frozen image graph (a GraphDef, `.pb`).

Resizing: TensorFlow 1 aligned the corners of pixels, TensorFlow 2 aligns their centres, a fraction of a pixel further.
A graph needs what it was trained with: the former, unless beam-retrain has frozen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from beam_retrain.transforms.core.compat.allowed_operations import allowed_part, refuse_foreign
from beam_retrain.transforms.core.errors import InputError, first_line

if TYPE_CHECKING:
  import tensorflow as tf

DEFAULT_PX = 299
_SHOWN_NAMES = 5
# Name prefix of all but input and output in graphs of `beam_retrain.trainer.export.frozen_graph`.
_OURS = "retrained/"


class GraphCall(NamedTuple):
  """How to call a graph. Workers unpickle it without TensorFlow."""

  input_layer: str  # operation that takes the images, of `height` x `width` pixels
  output_layer: str  # operation that gives the scores
  height: int
  width: int
  mean: float  # subtracted from each value, 0..255
  std: float  # divides the result
  half_pixel_centers: bool  # whether to resize as TensorFlow 2, not 1, does
  batch: int  # exact number of images per call; 0: any
  dtype: str  # of its input


def parse_graph(data: bytes, path: str) -> tf.compat.v1.GraphDef:
  """Parses a GraphDef; raises InputError for other files."""
  import tensorflow as tf

  graph = tf.compat.v1.GraphDef()
  try:
    graph.ParseFromString(data)
    if graph.node:
      return graph
  except Exception:  # each implementation of protobuf raises its own
    pass
  raise InputError(f"{path} is not a frozen graph (a GraphDef, .pb): give the file that `retrain` wrote, as --graph.")


def find_call(
  graph: tf.compat.v1.GraphDef,
  path: str,
  *,
  input_layer: str,
  output_layer: str,
  height: int | None,
  width: int | None,
  mean: float,
  std: float,
  half_pixel_centers: bool | None,
) -> GraphCall:
  """Determines a graph's call from the user's flags and the graph itself.

  None: the graph's own size, else `DEFAULT_PX`; or resizing as in its training. Raises InputError if an operation does
  not exist (suggests others), or does not take images, or not of this size.
  """
  input_layer, output_layer = input_layer.removesuffix(":0"), output_layer.removesuffix(":0")
  # TensorFlow computes parts of a graph while it loads it, to know shapes.
  allowed, others = allowed_part(graph, fed=input_layer)
  imported = _import(allowed, path)
  inputs = _candidate_inputs(imported)
  outputs = _candidate_outputs(imported, inputs)
  refuse_foreign(others.get(input_layer, set()) | others.get(output_layer, set()), path)
  missing = [
    f"no operation {name!r}: give --{flag}={' or '.join(candidates) or 'another'}"
    for flag, name, candidates in (("input_layer", input_layer, inputs), ("output_layer", output_layer, outputs))
    if name not in imported
  ]
  if missing:
    raise InputError(f"{path} has {'; and it has '.join(missing)}.")
  taken = imported[input_layer].outputs[0]
  if not _may_be_images(taken):
    raise InputError(
      f"{input_layer} of {path} takes {taken.dtype.name} {taken.shape}, not images:"
      f" give --input_layer={' or '.join(inputs) or 'another'}."
    )
  batch, *size_px = taken.shape.as_list()[:3] if taken.shape.rank else (None, None, None)
  for flag, asked, own in (("input_height", height, size_px[0]), ("input_width", width, size_px[1])):
    if asked and own and asked != own:
      raise InputError(f"{input_layer} of {path} takes {taken.shape}, not --{flag}={asked}: leave --{flag} out.")
  return GraphCall(
    input_layer,
    output_layer,
    height or size_px[0] or DEFAULT_PX,
    width or size_px[1] or DEFAULT_PX,
    mean,
    std,
    _is_ours(graph) if half_pixel_centers is None else half_pixel_centers,
    batch or 0,
    taken.dtype.name,
  )


def _import(graph: tf.compat.v1.GraphDef, path: str) -> dict[str, tf.Operation]:
  """Returns name -> operation, for those with outputs, with inferred shapes."""
  import tensorflow as tf

  with tf.Graph().as_default() as imported:
    try:
      tf.import_graph_def(graph, name="")
    except Exception as error:
      raise InputError(f"{path} cannot be loaded as a graph ({first_line(error)[:200]}): freeze it again.") from error
  return {operation.name: operation for operation in imported.get_operations() if operation.outputs}


def _candidate_inputs(operations: dict[str, tf.Operation]) -> list[str]:
  """Returns the placeholders for images, else all tensors of image shape."""
  images = [operation for operation in operations.values() if _may_be_images(operation.outputs[0])]
  placeholders = [operation.name for operation in images if operation.type.startswith("Placeholder")]
  shaped = [operation.name for operation in images if operation.outputs[0].shape.rank and operation.type != "Const"]
  # The last first: graphs of the first `retrain.py` decode images themselves, and are fed after that.
  return (placeholders or shaped[::-1])[:_SHOWN_NAMES]


def _may_be_images(tensor: tf.Tensor) -> bool:
  if not (tensor.dtype.is_floating or tensor.dtype.is_integer):
    return False
  return tensor.shape.rank is None or (tensor.shape.rank == 4 and tensor.shape[3] in (3, None))


def _candidate_outputs(operations: dict[str, tf.Operation], inputs: Sequence[str]) -> list[str]:
  """Returns final outputs and softmaxes computed from `inputs`, the likeliest first."""
  reached: set[str] = set()
  to_visit = [operations[name] for name in inputs]
  while to_visit:
    operation = to_visit.pop()
    if operation.name not in reached:
      reached.add(operation.name)
      to_visit += [consumer for output in operation.outputs for consumer in output.consumers()]
  floats = [
    operation
    for operation in operations.values()
    if operation.name in reached.difference(inputs) and operation.outputs[0].dtype.is_floating
  ]
  ends = [operation.name for operation in floats if not operation.outputs[0].consumers()]
  softmaxes = [operation.name for operation in floats if operation.type == "Softmax"]
  return list(dict.fromkeys([name for name in softmaxes if name in ends] + ends + softmaxes))[:_SHOWN_NAMES]


def _is_ours(graph: tf.compat.v1.GraphDef) -> bool:
  return sum(not node.name.startswith(_OURS) for node in graph.node) <= 2 < len(graph.node)
