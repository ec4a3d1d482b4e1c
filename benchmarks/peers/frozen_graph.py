"""The frozen graph in TensorFlow 1's manner, as both scripts of the article loaded theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorflow as tf


def import_frozen(network: Path) -> tuple[Any, Any]:
  """Imports it into the default graph; returns its input, float32 [N, 299, 299, 3], and output, float32 [N, 2048]."""
  names = json.loads((network / "network.json").read_text())
  definition = tf.compat.v1.GraphDef()
  definition.ParseFromString((network / "frozen.pb").read_bytes())
  found = tf.import_graph_def(definition, return_elements=[names["input"], names["output"]])
  return found[0], found[1]
