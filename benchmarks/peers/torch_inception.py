"""Inception v3 in PyTorch, of Keras's topology; the weights are Keras's, with the batch norms folded in.

torchvision's own differs in places that change the numbers: its average pools count the padding, its input is scaled
otherwise, and its batch norms have a scale. The order of the convolutions is that in which Keras makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Inception(nn.Module):
  """float32 or bfloat16 [N, 3, 299, 299], 0..1 -> [N, 2048]."""

  def __init__(self, weights: Path):
    super().__init__()
    with np.load(weights, allow_pickle=False) as arrays:
      count = len(arrays) // 2
      self._arrays = [(arrays[f"kernel_{number}"], arrays[f"bias_{number}"]) for number in range(1, count + 1)]
    self.convolutions = nn.ModuleList()
    stem = [self._conv(2, "valid"), self._conv(1, "valid"), self._conv(), _shrink]
    stem += [self._conv(1, "valid"), self._conv(1, "valid"), _shrink]
    self._blocks: list[Callable[[torch.Tensor], torch.Tensor]] = [_chain(stem)]
    for _ in range(3):
      self._blocks.append(self._branches((1, 2, 3), pooled=True))
    self._blocks.append(self._reduce((1, 3)))
    for _ in range(4):
      self._blocks.append(self._branches((1, 3, 5), pooled=True))
    self._blocks.append(self._reduce((2, 4)))
    for _ in range(2):
      self._blocks.append(self._widest())
    assert not self._arrays, f"{len(self._arrays)} convolutions are left over"

  def forward(self, images: torch.Tensor) -> torch.Tensor:
    found = images * 2 - 1
    for block in self._blocks:
      found = block(found)
    return found.mean((2, 3))

  def _conv(self, stride: int = 1, padding: str = "same") -> Callable[[torch.Tensor], torch.Tensor]:
    kernel, bias = self._arrays.pop(0)
    height, width, channels, filters = kernel.shape
    around = (height // 2, width // 2) if padding == "same" else (0, 0)
    layer = nn.Conv2d(channels, filters, (height, width), stride, around)
    with torch.no_grad():
      layer.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
      layer.bias.copy_(torch.from_numpy(bias.copy()))
    self.convolutions.append(layer)
    return lambda images: functional.relu(layer(images), inplace=True)

  def _branches(self, lengths: tuple[int, ...], *, pooled: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    branches = [_chain([self._conv() for _ in range(length)]) for length in lengths]
    if pooled:
      branches.append(_chain([_smooth, self._conv()]))
    return _joined(branches)

  def _reduce(self, lengths: tuple[int, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The last convolution of each branch halves the size, beside a pool that does."""
    branches = []
    for length in lengths:
      steps = [self._conv() for _ in range(length - 1)]
      branches.append(_chain([*steps, self._conv(2, "valid")]))
    return _joined([*branches, _shrink])

  def _widest(self) -> Callable[[torch.Tensor], torch.Tensor]:
    first = self._conv()
    second = _chain([self._conv(), _joined([self._conv(), self._conv()])])
    third = _chain([self._conv(), self._conv(), _joined([self._conv(), self._conv()])])
    return _joined([first, second, third, _chain([_smooth, self._conv()])])


def _chain(steps: list[Callable[[torch.Tensor], torch.Tensor]]) -> Callable[[torch.Tensor], torch.Tensor]:
  def run(images: torch.Tensor) -> torch.Tensor:
    for step in steps:
      images = step(images)
    return images

  return run


def _joined(branches: list[Callable[[torch.Tensor], torch.Tensor]]) -> Callable[[torch.Tensor], torch.Tensor]:
  return lambda images: torch.cat([branch(images) for branch in branches], 1)


def _shrink(images: torch.Tensor) -> torch.Tensor:
  return functional.max_pool2d(images, 3, 2)


def _smooth(images: torch.Tensor) -> torch.Tensor:
  return functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
