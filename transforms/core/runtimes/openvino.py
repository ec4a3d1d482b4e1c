"""Prepares and runs trunks with OpenVINO, an optional extra.

The graph is read by OpenVINO's own reader, because its converter sends telemetry.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.metadata
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.runtimes.trunk_info import PreparedInfo
from beam_retrain.transforms.core.runtimes.variant import FLOAT32, INT8, Variant, has_bfloat16
from beam_retrain.transforms.core.system.imports import load_nncf, load_openvino
from beam_retrain.transforms.core.system.plain_path import plain_path

openvino = load_openvino()

_MODEL_FILE = "model.xml"
_GRAPH_FILE = "graph.pb"
_CALIBRATION_BATCH = 8


def versions(variant: Variant) -> dict[str, str]:
  """Returns package -> version, for what a preparation depends on."""
  own = {"openvino": openvino.__version__}
  return {**own, "nncf": importlib.metadata.version("nncf")} if variant.precision == INT8 else own


def write(frozen: Any, variant: Variant, folder: str, sample: Any = None) -> dict[str, str]:
  """Writes the trunk, float32 or quantized, in OpenVINO's format; returns {}.

  Workers cast float32 weights. See `tensorflow.write`; `sample` is for int8, float32 [K, S, S, 3], 0..1.

  Raises:
    InputError: OpenVINO cannot run the trunk.
    OSError: the folder cannot be written.
  """
  model = _read_frozen(frozen, folder)
  if variant.precision == INT8:
    model = _quantize(model, sample)
  try:
    with plain_path(folder) as plain:
      openvino.save_model(model, os.path.join(plain, _MODEL_FILE), compress_to_fp16=False)
  except RuntimeError as error:
    raise OSError(errno.ENOSPC, "a file cannot be written whole", folder) from error
  return {}


def _quantize(model: Any, sample: np.ndarray) -> Any:
  """Quantizes convolutions and matrix products to int8, by the sample's ranges.

  Symmetric ranges only: asymmetric ones need a correction in every product and gained no accuracy on digits.
  """
  nncf = load_nncf()
  batches = [sample[start : start + _CALIBRATION_BATCH] for start in range(0, len(sample), _CALIBRATION_BATCH)]
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
    return nncf.quantize(
      model, nncf.Dataset(batches), preset=nncf.QuantizationPreset.PERFORMANCE, subset_size=len(batches)
    )


@functools.cache
def _core() -> Any:
  """Returns the only `Core` of this process.

  Each `Core` brings a plugin that gives its thread a signal stack and removes it when it ends. If one ended before
  another, the next signal would crash the process.
  """
  return openvino.Core()


def _read_frozen(frozen: Any, folder: str) -> Any:
  path = Path(folder, _GRAPH_FILE)
  path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
  try:
    with plain_path(str(path)) as plain:
      model = _core().read_model(plain)
    result = model.output(frozen.outputs[0].name)
    return model if len(model.outputs) == 1 else openvino.Model([result], model.get_parameters(), "trunk")
  except Exception as error:
    raise InputError(f"OpenVINO cannot run this trunk ({first_line(error)}): use --runtime tensorflow.") from error
  finally:
    path.unlink()


_FIRST_CALL = threading.Lock()
_SET_UP = threading.Event()


@contextlib.contextmanager
def _alone_the_first_time() -> Iterator[None]:
  """Serializes the first call of OpenVINO's Python binding, which may deadlock.

  The first call initializes the binding: it holds a C++ lock while it waits for the GIL. A second thread that holds the
  GIL and waits for that C++ lock would wait forever.
  """
  if _SET_UP.is_set():
    yield
    return
  with _FIRST_CALL:
    yield
    _SET_UP.set()


def load(folder: str, info: PreparedInfo, threads: int, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
  """Returns float32 [N, S, S, 3] -> float32 [N, D]; see `load_prepared`."""
  settings: dict[str, str | int | bool] = {
    # `infer_images` runs two batches at a time; each gets half of the threads. Threads that share a batch wait for each
    # other after every layer, even longer if decoding occupies a core.
    "NUM_STREAMS": 1 if threads == 1 else 2,
    # Pinning would put the threads of all processes on the same first cores.
    "ENABLE_CPU_PINNING": False,
    # Layers that are not int8 use bfloat16 if available, whose error is below that of int8.
    "INFERENCE_PRECISION_HINT": "bf16" if info.variant.precision != FLOAT32 and has_bfloat16() else "f32",
    **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
  }
  core = _core()
  with plain_path(folder) as plain:
    model = core.read_model(os.path.join(plain, _MODEL_FILE))
  # float32 [batch_size, S, S, 3]: a static shape is faster than a dynamic one.
  model.reshape([batch_size, *model.input().partial_shape[1:]])
  compiled = core.compile_model(model, "CPU", settings)
  idle: list[Any] = []  # requests not in use; append and pop are atomic

  def embed(images: np.ndarray) -> np.ndarray:
    vectors = np.empty((len(images), info.dimensions), np.float32)
    try:
      request = idle.pop()
    except IndexError:
      request = compiled.create_infer_request()
    for start in range(0, len(images), batch_size):
      part = images[start : start + batch_size]
      count = len(part)
      if count < batch_size:
        part = np.concatenate([part, np.broadcast_to(part[-1:], (batch_size - count, *part.shape[1:]))])
      with _alone_the_first_time():
        # Shared buffers avoid copies, except the one into `vectors`.
        request.infer([part], share_inputs=True, share_outputs=True)
        vectors[start : start + count] = request.get_output_tensor(0).data[:count]
    idle.append(request)
    return vectors

  return embed
