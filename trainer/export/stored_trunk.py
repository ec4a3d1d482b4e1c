"""Copies a stored trunk into the exported model, protobuf to protobuf.

An Inception v3 is 90 MB of constants. Loading, tracing and writing them takes seconds and gigabytes each time; moving
them between protobuf messages takes neither.
SavedModel: tensorflow/core/protobuf/saved_model.proto, saved_object_graph.proto; functions:
tensorflow/core/framework/function.proto.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, function_pb2
from tensorflow.core.protobuf import saved_model_pb2

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system.tensorflow_internals import function_def_to_graph_def, write_fingerprint

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_STORED = "stored_"  # prefix of copied functions, whose old names may be taken


class StoredTrunk:
  """The function `embed` of a stored trunk.

  It maps float32 [N, S, S, 3] to float32 [N, D].

  Attributes:
    folder: written by `transforms.core.models.saved_model.save_trunk`.
    functions: name -> function, of all that it calls, directly or not.
  """

  def __init__(self, folder: str):
    self.folder = folder
    model = _read(folder)
    library = {one.signature.name: one for one in model.meta_graphs[0].graph_def.library.function}
    try:
      self.embed = library[_name_of(model, "embed")]
    except KeyError as error:
      raise InputError(f"{folder} holds no trunk: run `bottlenecks` again.") from error
    self.functions: dict[str, function_pb2.FunctionDef] = {}
    to_visit = [self.embed]
    while to_visit:
      for name in [one.name for one in _calls(to_visit.pop())]:
        if name in library and name not in self.functions:
          self.functions[name] = library[name]
          to_visit.append(library[name])

  def to_graph(self) -> tuple[tf.compat.v1.GraphDef, str, str] | None:
    """Returns the trunk without functions, and names of input and output.

    None if some cannot be inlined here, such as a loop's.
    """
    body = self.embed
    while (inner := self._wrapped_by(body)) is not None:
      body = inner
    if any(_calls(body)) or len(body.signature.input_arg) != 1:
      return None
    graph, flat_names = function_def_to_graph_def(body)
    (output,) = body.signature.output_arg
    return graph, body.signature.input_arg[0].name, flat_names[body.ret[output.name]]

  def _wrapped_by(self, body: function_pb2.FunctionDef) -> function_pb2.FunctionDef | None:
    """Returns the function that `body` calls, if it does nothing else."""
    calls = [node for node in body.node_def if node.op in _CALLS]
    (argument,) = body.signature.input_arg
    (returned,) = body.ret.values()
    rest = {node.name: node for node in body.node_def if node.op not in (*_CALLS, "NoOp")}
    if len(calls) != 1 or any(node.op != "Identity" for node in rest.values()):
      return None
    while returned.split(":")[0] in rest:
      returned = rest[returned.split(":")[0]].input[0]
    inner = self.functions[calls[0].attr["f"].func.name]
    passes_on = [one for one in calls[0].input if not one.startswith("^")] == [argument.name]
    is_returned = returned == f"{calls[0].name}:output:0" and len(inner.signature.output_arg) == 1
    return inner if passes_on and is_returned else None

  def put_into(self, saved_model: str, function: str) -> None:
    """Replaces the placeholder `function` of a stored model by `embed`."""
    model = _read(saved_model)
    library = model.meta_graphs[0].graph_def.library
    (stand_in,) = (one for one in library.function if one.signature.name == _name_of(model, function))
    taken_over = [library.function.add() for _ in self.functions]
    for copy, original in zip(taken_over, self.functions.values(), strict=True):
      copy.CopyFrom(original)
      copy.signature.name = _STORED + original.signature.name
    (own_input,), (own_output,) = stand_in.signature.input_arg, stand_in.signature.output_arg
    (argument,), (output,) = self.embed.signature.input_arg, self.embed.signature.output_arg
    del stand_in.node_def[:]
    stand_in.node_def.extend(self.embed.node_def)
    for node in stand_in.node_def:
      node.input[:] = [own_input.name if source == argument.name else source for source in node.input]
    for copy in (stand_in, *taken_over):
      for called in _calls(copy):
        if called.name in self.functions:
          called.name = _STORED + called.name
    returned = self.embed.ret[output.name]
    stand_in.control_ret.clear()
    stand_in.ret.clear()
    stand_in.ret[own_output.name] = own_input.name if returned == argument.name else returned
    with open(os.path.join(saved_model, "saved_model.pb"), "wb") as file:
      file.write(model.SerializeToString(deterministic=True))
    write_fingerprint(saved_model)


def _read(folder: str) -> saved_model_pb2.SavedModel:
  path = os.path.join(folder, "saved_model.pb")
  try:
    with open(path, "rb") as file:
      model = saved_model_pb2.SavedModel.FromString(file.read())
    if not model.meta_graphs:
      raise ValueError("no graph")
  except Exception as error:  # each implementation of protobuf raises its own
    raise InputError(f"{path} cannot be read as a SavedModel ({type(error).__name__}): write it again.") from error
  return model


def _name_of(model: saved_model_pb2.SavedModel, attribute: str) -> str:
  """Returns the library's name of a model's attribute; raises KeyError."""
  objects = model.meta_graphs[0].object_graph_def.nodes
  for child in objects[0].children if objects else ():
    functions = objects[child.node_id].function.concrete_functions
    if child.local_name == attribute and len(functions) == 1:
      name: str = functions[0]
      return name
  raise KeyError(attribute)


def _calls(function: function_pb2.FunctionDef) -> Iterator[attr_value_pb2.NameAttrList]:
  """Yields the mutable names of called functions."""
  for node in function.node_def:
    for value in node.attr.values():
      if value.WhichOneof("value") == "func":
        yield value.func
      elif value.WhichOneof("value") == "list":
        yield from value.list.func
