"""Extracts the subgraph that computes one output."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf


def extract_subgraph(
  graph: tf.compat.v1.GraphDef, output: str, *, cut_at: str | None = None, keep_control: bool = False
) -> tf.compat.v1.GraphDef:
  """Returns the nodes that the node `output` depends on, in order.

  Unlike `tf.compat.v1.graph_util.extract_sub_graph`, it can leave out control inputs, which would bring tables along;
  they only delay values in a graph without state. The inputs of the node `cut_at` are left out.
  """
  nodes = {node.name: node for node in graph.node}
  reached: set[str] = set()
  to_visit = [output]
  while to_visit:
    name = to_visit.pop()
    if name not in reached:
      reached.add(name)
      if name != cut_at:
        to_visit += [source.removeprefix("^").split(":")[0] for source in _inputs(nodes[name], keep_control)]
  result = tf.compat.v1.GraphDef(versions=graph.versions)
  for node in graph.node:
    if node.name in reached:
      copy = result.node.add()
      copy.CopyFrom(node)
      copy.input[:] = _inputs(node, keep_control)
  if any(value.HasField("func") for node in result.node for value in node.attr.values()):  # a loop's, for example
    result.library.CopyFrom(graph.library)
  return result


def _inputs(node: tf.compat.v1.NodeDef, keep_control: bool) -> Iterable[str]:
  return [source for source in node.input if keep_control or not source.startswith("^")]
