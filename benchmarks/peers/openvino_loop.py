"""OpenVINO by itself: one thread decodes ahead, the engine's own queue of requests keeps both cores busy."""

from __future__ import annotations

import numpy as np
import openvino

from benchmarks.peers.images import read_batch
from benchmarks.peers.openvino_network import compile_network
from benchmarks.peers.protocol import End, ahead, end_of_batch, hand_back, read_task


def main() -> None:
  task = read_task(("bfloat16", "float32", "int8"))
  compiled = compile_network(task.network, task.precision, task.batch_size, task.threads)
  requests = openvino.AsyncInferQueue(compiled)
  vectors = np.empty((len(task.batches), *compiled.output(0).shape), np.float32)
  ends: list[End] = []

  def take(request: openvino.InferRequest, given: tuple[int, np.ndarray]) -> None:
    number = given[0]
    vectors[number] = request.get_output_tensor().data
    ends.append(end_of_batch(len(task.batches[number])))

  requests.set_callback(take)
  for number, batch in enumerate(ahead(lambda paths: read_batch(paths, task.batch_size), task.batches)):
    # The batch goes along, too: what is shared, not copied, has to live until the request is done.
    requests.start_async(batch, (number, batch), share_inputs=True)
  requests.wait_all()
  settings = {"openvino": openvino.__version__, "requests": len(requests), "threads": task.threads}
  hand_back(task, vectors.reshape(-1, vectors.shape[-1])[: len(task.images)], ends, settings)


if __name__ == "__main__":
  main()
