"""PyTorch: a DataLoader that decodes in processes of its own, the network channels last, compiled with its weights
frozen into it."""

from __future__ import annotations

import os
import shutil

os.environ.setdefault("TORCHINDUCTOR_FREEZING", "1")

import cv2
import numpy as np
import torch
from torch.nn import functional

from benchmarks.peers.protocol import INPUT_PX, End, end_of_batch, hand_back, read_task
from benchmarks.peers.torch_inception import Inception


class Images(torch.utils.data.Dataset):
  """Element: uint8 [1 or 3, H, W], as it was decoded."""

  def __init__(self, paths: list[str]):
    self._paths = paths

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, number: int) -> torch.Tensor:
    pixels = cv2.imdecode(np.fromfile(self._paths[number], np.uint8), cv2.IMREAD_UNCHANGED)
    pixels = pixels[..., None] if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return torch.from_numpy(pixels.transpose(2, 0, 1))


def main() -> None:
  task = read_task(("bfloat16", "float32"))
  torch.set_num_threads(task.threads)
  dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[task.precision]
  network = Inception(task.network / "weights.npz").eval().to(dtype=dtype, memory_format=torch.channels_last)

  def collate(images: list[torch.Tensor]) -> torch.Tensor:
    resized = [
      functional.interpolate(image[None].float() / 255, (INPUT_PX, INPUT_PX), mode="bilinear") for image in images
    ]
    return torch.cat(resized).to(dtype).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

  loader = torch.utils.data.DataLoader(
    Images(list(task.images)), task.batch_size, num_workers=1, collate_fn=collate, prefetch_factor=2
  )
  # Compiled needs a C++ compiler; without one PyTorch runs its layers one by one, at half the rate.
  compiled = any(map(shutil.which, ("g++", "clang++")))
  run = torch.compile(network) if compiled else network
  vectors: list[np.ndarray] = []
  ends: list[End] = []
  with torch.inference_mode():
    for batch in loader:
      count = len(batch)
      if count < task.batch_size:  # another shape would be compiled anew
        batch = functional.pad(batch, (0, 0, 0, 0, 0, 0, 0, task.batch_size - count))
        batch = batch.contiguous(memory_format=torch.channels_last)
      vectors.append(run(batch)[:count].float().numpy())
      ends.append(end_of_batch(count))
  settings = {"torch": torch.__version__, "threads": task.threads, "compiled": compiled}
  hand_back(task, np.concatenate(vectors), ends, settings)


if __name__ == "__main__":
  main()
