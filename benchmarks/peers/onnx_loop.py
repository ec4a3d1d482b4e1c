"""ONNX Runtime by itself: PyTorch's network, exported once, with its thread pool; one thread decodes ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.peers.images import read_batch
from benchmarks.peers.protocol import INPUT_PX, End, ahead, end_of_batch, hand_back, read_task


def _export(network: Path) -> Path:
  """Returns the ONNX file: float32 [N, 3, 299, 299] -> float32 [N, 2048]; made once."""
  path = network / "network.onnx"
  if not path.exists():
    import torch

    from benchmarks.peers.torch_inception import Inception

    images = torch.zeros(2, 3, INPUT_PX, INPUT_PX)
    shape = {0: torch.export.Dim("images")}
    made = torch.onnx.export(Inception(network / "weights.npz").eval(), (images,), dynamo=True, dynamic_shapes=(shape,))
    temporary = path.with_suffix(".tmp")
    made.save(temporary, external_data=False)
    temporary.rename(path)
  return path


def main() -> None:
  task = read_task(("float32",))
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = task.threads
  session = onnxruntime.InferenceSession(_export(task.network), options, providers=["CPUExecutionProvider"])
  given = session.get_inputs()[0].name
  vectors, ends = [], list[End]()
  for batch in ahead(lambda paths: read_batch(paths, len(paths)), task.batches):
    vectors.append(session.run(None, {given: batch.transpose(0, 3, 1, 2)})[0])
    ends.append(end_of_batch(len(batch)))
  hand_back(task, np.concatenate(vectors), ends, {"onnxruntime": onnxruntime.__version__, "threads": task.threads})


if __name__ == "__main__":
  main()
