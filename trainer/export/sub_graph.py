"""Cutting a graph down to what one output is computed from."""

from __future__ import annotations

import tensorflow as tf


def keep_what_computes(graph: tf.compat.v1.GraphDef, output: str) -> tf.compat.v1.GraphDef:
  """Returns `graph` with only the nodes whose values reach the node `output`, in their old order.

  Functions come along where a node calls one. Control inputs are left out: in a graph without state they only make a
  value wait for another one that it does not use.
  """
  nodes = {node.name: node for node in graph.node}
  kept: set[str] = set()
  to_visit = [output]
  while to_visit:
    name = to_visit.pop()
    if name not in kept:
      kept.add(name)
      to_visit.extend(source.split(":")[0] for source in _data_inputs(nodes[name]))
  result = tf.compat.v1.GraphDef(versions=graph.versions)
  for node in graph.node:
    if node.name in kept:
      copy = result.node.add()
      copy.CopyFrom(node)
      del copy.input[:]
      copy.input.extend(_data_inputs(node))
  if any(value.HasField("func") for node in result.node for value in node.attr.values()):  # as of a loop
    result.library.CopyFrom(graph.library)
  return result


def _data_inputs(node: tf.compat.v1.NodeDef) -> list[str]:
  return [source for source in node.input if not source.startswith("^")]
