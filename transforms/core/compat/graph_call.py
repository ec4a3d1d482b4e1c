"""How a frozen graph over images (a GraphDef, `.pb`) is called: by what the user says, and what can be seen in it.

Resizing: TensorFlow 1 aligned the corners of pixels, TensorFlow 2 aligns their centres, a fraction of a pixel further.
Each graph wants what it was trained with: the first, but for those that this project has frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from beam_retrain.transforms.core.errors import InputError, first_line

DEFAULT_PX = 299
SHOWN_NAMES = 5
OURS = "retrained/"
"""`beam_retrain.trainer.export.frozen_graph` puts all but its input and output below this name."""


class GraphCall(NamedTuple):
  """How a graph is called.

  Attributes:
    input_layer: the operation that takes the images.
    output_layer: the operation that gives the scores.
    height: of what it takes, pixels.
    width: likewise.
    mean: what is taken from each value, 0..255, of a image.
    std: what it is then divided by.
    half_pixel_centers: images are resized as TensorFlow 2 does, not as TensorFlow 1 did.
    batch: how many images it takes at once, no more and no fewer; 0: any number.
    dtype: the type of number that it takes.
  """

  input_layer: str
  output_layer: str
  height: int
  width: int
  mean: float
  std: float
  half_pixel_centers: bool
  batch: int
  dtype: str


def parse_graph(data: bytes, path: str) -> tf.compat.v1.GraphDef:
  """Parses a file that holds a graph.

  Raises:
    InputError: it does not.
  """
  graph = tf.compat.v1.GraphDef()
  try:
    graph.ParseFromString(data)
  except Exception as error:
    raise InputError(_not_a_graph(path)) from error
  if not graph.node:
    raise InputError(_not_a_graph(path))
  return graph


def _not_a_graph(path: str) -> str:
  return f"{path} is not a frozen graph (a GraphDef, .pb): give the file that `retrain` left as --graph."


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
  """Finds out how a graph is called, from what the user has said of it and what can be seen.

  Args:
    graph: see `parse_graph`.
    path: its file, for the error.
    input_layer: operation, as the user gave it.
    output_layer: likewise.
    height: pixels; None: the graph's own, where it says, else `DEFAULT_PX`.
    width: likewise.
    mean: see `GraphCall`.
    std: likewise.
    half_pixel_centers: likewise; None: as the graph was trained.

  Raises:
    InputError: there are no such operations (names those that may be meant), or they do not take images, or not of
      that size.
  """
  imported = _import(graph, path)
  input_layer, output_layer = input_layer.removesuffix(":0"), output_layer.removesuffix(":0")
  inputs = _may_take_images(imported)
  outputs = _may_give_scores(imported, inputs)
  wrong = [
    f"no operation {name!r}: give --{flag}={' or '.join(found) or 'another'}"
    for flag, name, found in (("input_layer", input_layer, inputs), ("output_layer", output_layer, outputs))
    if name not in imported
  ]
  if wrong:
    raise InputError(f"{path} has {'; and it has '.join(wrong)}.")
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
  """Returns name -> operation, for those that give something; the shapes are inferred."""
  with tf.Graph().as_default() as imported:
    try:
      tf.import_graph_def(graph, name="")
    except Exception as error:
      raise InputError(f"{path} cannot be loaded as a graph ({first_line(error)[:200]}): freeze it again.") from error
  return {operation.name: operation for operation in imported.get_operations() if operation.outputs}


def _may_take_images(operations: dict[str, tf.Operation]) -> list[str]:
  """Returns the placeholders for images; where there are none, what has the shape of images, the last first.

  The graphs of the first `retrain.py` decode a image themselves, and are fed between that and the trunk.
  """
  images = [operation for operation in operations.values() if _may_be_images(operation.outputs[0])]
  placeholders = [operation.name for operation in images if operation.type.startswith("Placeholder")]
  shaped = [operation.name for operation in images if operation.outputs[0].shape.rank and operation.type != "Const"]
  return (placeholders or shaped[::-1])[:SHOWN_NAMES]


def _may_be_images(tensor: tf.Tensor) -> bool:
  if not (tensor.dtype.is_floating or tensor.dtype.is_integer):
    return False
  return tensor.shape.rank is None or (tensor.shape.rank == 4 and tensor.shape[3] in (3, None))


def _may_give_scores(operations: dict[str, tf.Operation], inputs: Sequence[str]) -> list[str]:
  """Returns what nobody consumes, and the softmaxes, of what is computed from `inputs`; what is both comes first."""
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
  return list(dict.fromkeys([name for name in softmaxes if name in ends] + ends + softmaxes))[:SHOWN_NAMES]


def _is_ours(graph: tf.compat.v1.GraphDef) -> bool:
  """Says whether the graph was frozen by `beam_retrain.trainer.export.frozen_graph`."""
  return sum(not node.name.startswith(OURS) for node in graph.node) <= 2 < len(graph.node)
