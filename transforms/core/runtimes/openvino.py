"""Prepared trunks for OpenVINO, an optional extra; nothing but a prepared trunk of that kind loads this module.

No telemetry: the graph is read by OpenVINO's own reader, not by its converter, which reports home.
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
from typing import Any

import numpy as np

from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.runtimes.trunk_info import PreparedInfo
from beam_retrain.transforms.core.runtimes.variant import FLOAT32, INT8, Variant, has_bfloat16
from beam_retrain.transforms.core.system.openvino import load_nncf, load_openvino

openvino = load_openvino()

_MODEL_FILE = "model.xml"
_GRAPH_FILE = "graph.pb"
_CALIBRATION_BATCH = 8


def versions(variant: Variant) -> dict[str, str]:
  """Returns package -> version, of what a preparation depends on."""
  own = {"openvino": openvino.__version__}
  return {**own, "nncf": importlib.metadata.version("nncf")} if variant.precision == INT8 else own


def write(frozen: Any, variant: Variant, folder: str, sample: Any = None) -> dict[str, str]:
  """Writes the trunk in OpenVINO's format with float32 weights, which workers cast.

  Args:
    frozen: concrete function float32 [N, S, S, 3] -> float32 [N, D], without variables.
    variant: to prepare it for; int8 is calibrated on `sample`.
    folder: exists.
    sample: for int8, float32 [K, S, S, 3], 0..1.

  Returns:
    Nothing that `load` needs to know.

  Raises:
    InputError: OpenVINO cannot run such a trunk.
    OSError: the folder cannot be written.
  """
  model = _read_frozen(frozen, folder)
  if variant.precision == INT8:
    model = _quantize(model, sample)
  try:
    openvino.save_model(model, os.path.join(folder, _MODEL_FILE), compress_to_fp16=False)
  except RuntimeError as error:
    raise OSError(errno.ENOSPC, "a file cannot be written whole", folder) from error
  return {}


def _quantize(model: Any, sample: np.ndarray) -> Any:
  """Returns the model with its convolutions and matrix products in int8, by the ranges that the sample gives them.

  With symmetric ranges only: asymmetric ones cost a correction in every product, and gained no accuracy on digits.
  """
  nncf = load_nncf()
  batches = [sample[start : start + _CALIBRATION_BATCH] for start in range(0, len(sample), _CALIBRATION_BATCH)]
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
    return nncf.quantize(
      model, nncf.Dataset(batches), preset=nncf.QuantizationPreset.PERFORMANCE, subset_size=len(batches)
    )


@functools.cache
def _core() -> Any:
  """Returns this process's one core. Each brings a plugin that gives the thread a stack for signals, and takes it away
  with the plugin: one that ends before another leaves a stack that is no more, and the next signal is the end."""
  return openvino.Core()


def _read_frozen(frozen: Any, folder: str) -> Any:
  path = os.path.join(folder, _GRAPH_FILE)
  with open(path, "wb") as file:
    file.write(frozen.graph.as_graph_def().SerializeToString())
  try:
    model = _core().read_model(path)
    result = model.output(frozen.outputs[0].name)
    if len(model.outputs) > 1:
      model = openvino.Model([result], model.get_parameters(), "trunk")
    return model
  except Exception as error:
    first = first_line(error)
    raise InputError(f"OpenVINO cannot run this trunk ({first}): use --runtime tensorflow.") from error
  finally:
    os.remove(path)


_FIRST_CALL = threading.Lock()
_SET_UP = threading.Event()


@contextlib.contextmanager
def _alone_the_first_time() -> Iterator[None]:
  """OpenVINO's Python binding sets itself up in its first call: it holds a lock of C++ while it waits for Python's, and
  a second thread that comes to the same place with Python's lock waits for that of C++: for ever, both."""
  if _SET_UP.is_set():
    yield
    return
  with _FIRST_CALL:
    yield
    _SET_UP.set()


def load(folder: str, info: PreparedInfo, threads: int, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
  """Returns float32 [N, S, S, 3] -> float32 [N, D]; see `load_prepared`.

  Raises:
    InputError: it is no such model.
  """
  path = os.path.join(folder, _MODEL_FILE)
  settings: dict[str, Any] = {
    # Two batches at a time, each by half of the threads, as `infer_images` gives them: threads that share a batch wait
    # for each other after every layer, all the longer where decoding takes a core from one of them.
    "NUM_STREAMS": 1 if threads == 1 else 2,
    # It would pin its threads to the first cores, and so would every other process of the machine: to the same ones.
    "ENABLE_CPU_PINNING": False,
    # What int8 leaves out is computed with bfloat16 where there is any, which makes less of a difference than int8.
    "INFERENCE_PRECISION_HINT": "bf16" if info.variant.precision != FLOAT32 and has_bfloat16() else "f32",
  }
  if threads:
    settings["INFERENCE_NUM_THREADS"] = threads
  try:
    core = _core()
    model = core.read_model(path)
    # float32 [batch_size, S, S, 3]: a graph of one shape is faster than one of any.
    model.reshape([batch_size, *model.input().partial_shape[1:]])
    compiled = core.compile_model(model, "CPU", settings)
  except Exception as error:
    first = first_line(error)
    raise InputError(f"{path} cannot be loaded ({first}): make the trunk again.") from error
  idle: list[Any] = []  # one for each thread that is in `embed`; appending and popping is atomic

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
        # Shared: read where it lies, and no copy of what comes out but the one into `vectors`.
        request.infer([part], share_inputs=True, share_outputs=True)
        vectors[start : start + count] = request.get_output_tensor(0).data[:count]
    idle.append(request)
    return vectors

  return embed
