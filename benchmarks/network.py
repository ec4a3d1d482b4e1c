"""The network of the benchmark in the forms that the contenders take: one set of weights, Keras's.

  python -m benchmarks.network --trunk_weights FILE --output DIR

Writes a copy of FILE (for Keras), `frozen.pb` (the graph with its weights as constants, float32 [N, 299, 299, 3] in
0..1 -> float32 [N, 2048], for TensorFlow 1 and OpenVINO), `network.json` (the names of both ends, and of the copy), and
`weights.npz` (kernels [H, W, in, out] and biases in the order of the layers, batch norms folded in, for PyTorch).
Nothing in it is made faster than what its user would have.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

INPUT_PX = 299
# Keras's, of all its batch norms in this network; they have no scale.
_EPSILON = 1e-3


def fold_batch_norms(variables: Mapping[str, np.ndarray], epsilon: float = _EPSILON) -> dict[str, np.ndarray]:
  """Puts each batch norm into the convolution before it.

  Args:
    variables: `conv2d_N/kernel` and `batch_normalization_N/{beta,moving_mean,moving_variance}`, N from 1 on.
    epsilon: added to the variance.

  Returns:
    `kernel_N`, float32 [H, W, in, out], and `bias_N`, float32 [out].
  """
  folded = {}
  for number in range(1, 1 + sum(name.endswith("/kernel") for name in variables)):
    norm = f"batch_normalization_{number}"
    scale = 1 / np.sqrt(variables[f"{norm}/moving_variance"] + epsilon)
    folded[f"kernel_{number}"] = variables[f"conv2d_{number}/kernel"] * scale
    folded[f"bias_{number}"] = variables[f"{norm}/beta"] - variables[f"{norm}/moving_mean"] * scale
  return folded


def write_network(trunk_weights: Path, folder: Path) -> None:
  """Writes all forms; see above."""
  from beam_retrain.transforms.core.system.imports import load_tensorflow

  load_tensorflow()
  import keras

  from beam_retrain.transforms.core.models.saved_model import freeze
  from benchmarks.inception_weights import variables_by_name

  folder.mkdir(parents=True, exist_ok=True)
  model = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=str(trunk_weights))
  frozen = freeze(lambda images: model(images * 2.0 - 1.0, training=False), INPUT_PX)
  (folder / "frozen.pb").write_bytes(frozen.graph.as_graph_def().SerializeToString())
  names = {"input": frozen.inputs[0].name, "output": frozen.outputs[0].name, "keras_weights": trunk_weights.name}
  (folder / "network.json").write_text(json.dumps(names))
  variables = {name: variable.numpy() for name, variable in variables_by_name(model).items()}
  np.savez(folder / "weights.npz", **fold_batch_norms(variables))
  # Under its own name, by which Keras knows its format.
  shutil.copyfile(trunk_weights, folder / trunk_weights.name)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--trunk_weights", required=True, type=Path, help="Keras's Inception v3 without its top")
  parser.add_argument("--output", required=True, type=Path, help="folder to write")
  flags = parser.parse_args()
  write_network(flags.trunk_weights, flags.output)


if __name__ == "__main__":
  main()
