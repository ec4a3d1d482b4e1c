"""Prepared trunks: folders that a worker runs without further optimization.

| file                      | runtime    | what                                                                      |
|---------------------------|------------|---------------------------------------------------------------------------|
| `graph.pb`                | tensorflow | frozen graph, folded, fused and, for bfloat16, cast                       |
| `model.xml`, `model.bin`  | openvino   | OpenVINO's own format                                                     |
| `card.json`               | both       | see `PreparedInfo`                                                        |

The folder is `prepared/`, in a trunk's folder beside the SavedModel, or in `M/trunk`. An image's bottleneck has the
same bits for any number of threads and in any batch. With TensorFlow this needs oneDNN, which
`beam_retrain.transforms.core` switches on, and a mean over a number of channels that is a multiple of eight: else its
last bit (4e-7) depends on the image's place in the batch. This module does not load TensorFlow.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.runtimes.trunk_info import PreparedInfo, TrunkInfo, default_batch
from beam_retrain.transforms.core.runtimes.variant import OPENVINO, TENSORFLOW, Variant
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.core.system.small_files import read_small

PREPARED_FOLDER = "prepared"
"""In a folder of a trunk: its form for a runtime and a precision."""
CARD_FILE = "card.json"
FILES = {TENSORFLOW: ("graph.pb",), OPENVINO: ("model.xml", "model.bin")}
"""Runtime -> names of its files."""

REWRITE = "run `beam-retrain bottlenecks` again, or `beam-retrain train` for the trunk of a model"


@dataclasses.dataclass(frozen=True)
class PreparedTrunk:
  variant: Variant
  input_px: int
  dimensions: int
  batch_size: int
  embed: Callable[[Any], np.ndarray]  # float32 [N, S, S, 3], 0..1, array or tensor -> float32 [N, D]; thread-safe


def find_prepared(folder: str) -> str:
  """Returns the folder of a trunk's prepared form, or ""."""
  path = os.path.join(folder, PREPARED_FOLDER)
  return path if os.path.exists(os.path.join(path, CARD_FILE)) else ""


def read_prepared_info(folder: str) -> PreparedInfo:
  """Reads `card.json`; raises InputError if it is missing or damaged."""
  return read_small(os.path.join(folder, CARD_FILE), lambda data: PreparedInfo.parse(data.decode()), REWRITE)


def write_prepared_info(folder: str, trunk: TrunkInfo, versions: dict[str, str], tensors: Mapping[str, str]) -> None:
  """Writes `card.json` for the runtime's files in the folder.

  `tensors` are the graph's `input` and `output`, for TensorFlow.
  """
  hashes = {name: local_files.sha256(os.path.join(folder, name)) for name in FILES[trunk.variant.runtime]}
  info = PreparedInfo(
    trunk.variant,
    trunk.fingerprint,
    trunk.input_px,
    trunk.dimensions,
    versions,
    hashes,
    machine=platform.machine(),
    **tensors,
  )
  Path(folder, CARD_FILE).write_text(info.encode(), encoding="utf-8")


def check_prepared(folder: str, trunk: TrunkInfo) -> None:
  """Raises InputError if a folder is not this prepared trunk, whole."""
  info = read_prepared_info(folder)
  if info.fingerprint != trunk.fingerprint:
    raise InputError(f"{folder} is not the trunk {trunk} any more, but {info.fingerprint[:12]}: {REWRITE}.")
  _check_files(folder, info)


def is_intact(folder: str, trunk: TrunkInfo) -> bool:
  """Whether a folder (or "") is this prepared trunk, whole."""
  try:
    check_prepared(folder, trunk)
  except InputError:
    return False
  return bool(folder)


def foreign_reason(folder: str) -> str:
  """Returns why a prepared trunk is not for this machine, or ""."""
  info = read_prepared_info(folder)
  if info.machine not in ("", platform.machine()):
    return f"it was prepared on {info.machine}, and this is {platform.machine()}"
  return info.variant.unsupported_reason()


def _check_files(folder: str, info: PreparedInfo) -> None:
  """Raises InputError for a damaged or missing file."""
  for name, digest in info.files.items():
    path = os.path.join(folder, os.path.basename(name))
    if not os.path.exists(path) or local_files.sha256(path) != digest:
      raise InputError(f"{path} is damaged or missing: {REWRITE}.")


def import_runtime(name: str, threads: int = 0) -> Any:
  """Imports a runtime's module, and with it TensorFlow or OpenVINO."""
  if name == TENSORFLOW:
    load_tensorflow(threads)
  return importlib.import_module(f"{__package__}.{name}")


def load_prepared(folder: str, threads: int = 0, batch_size: int = 0) -> PreparedTrunk:
  """Loads a prepared trunk, in under three seconds for Inception v3.

  Args:
    folder: the one with `card.json`.
    threads: of this process; 0: the runtime's own choice.
    batch_size: images in most calls; OpenVINO's graph is compiled for it, smaller batches are padded. 0: the default.
  """
  info = read_prepared_info(folder)
  if reason := info.variant.unsupported_reason():
    raise InputError(f"the trunk {folder} was prepared for {info.variant}, not for {platform.node()}: {reason}.")
  _check_files(folder, info)
  runtime = import_runtime(info.variant.runtime, threads)
  batch_size = batch_size or default_batch(info.variant.runtime, info.input_px)
  try:
    embed = runtime.load(folder, info, threads, batch_size)
  except Exception as error:
    raise InputError(f"the trunk {folder} cannot be loaded ({first_line(error)}): {REWRITE}.") from error
  return PreparedTrunk(
    info.variant, info.input_px, info.dimensions, batch_size, lambda images: embed(_as_array(images))
  )


def _as_array(images: Any) -> np.ndarray:
  """Returns float32 [N, S, S, 3], sharing a tensor's memory if contiguous."""
  # A tensor's numpy() would copy; its buffer does not.
  return np.ascontiguousarray(images if isinstance(images, np.ndarray) else np.asarray(memoryview(images)), np.float32)
