"""Loads trunks from TF Hub, Keras, SavedModels or the package, at submission.

To add a source, write a function that returns a `Trunk` and add it to `_find_source`. Workers load only the SavedModel
folder (transforms/core/models/saved_model.py) and download nothing.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beam_retrain.transforms.core.arguments import AnyPath, as_path
from beam_retrain.transforms.core.errors import InputError, first_line, flag
from beam_retrain.transforms.core.models.saved_model import (
  BUNDLED_WEIGHTS,
  check_trunk,
  fingerprint_folder,
  freeze,
  load_saved_model,
  save_trunk,
  write_trunk_info,
)
from beam_retrain.transforms.core.runtimes.prepared import (
  FILES,
  PREPARED_FOLDER,
  find_prepared,
  import_runtime,
  is_intact,
  write_prepared_info,
)
from beam_retrain.transforms.core.runtimes.trunk_info import (
  BUNDLED,
  HUB_INCEPTION_V3,
  INCEPTION_V3,
  TRUNK_HELP,
  WEIGHTS_ADDRESS,
  TrunkInfo,
)
from beam_retrain.transforms.core.runtimes.variant import BFLOAT16, INT8, OPENVINO, Variant
from beam_retrain.transforms.core.system import local_files, scratch
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.core.system.plain_path import plain_path
from beam_retrain.transforms.io import cache
from beam_retrain.transforms.io.transfer import download, replace_folder

# Version of the prepared files: raise it when they change.
_PREPARATION = 1
_TENSORFLOW_1_MODULE = "tfhub_module.pb"
_KERAS = "keras:"
_REMOTE = ("https://", "http://", "gs://")
_SAVED_MODEL = "saved_model"


@dataclasses.dataclass(frozen=True)
class Trunk:
  """A loaded feature extractor and its metadata."""

  info: TrunkInfo
  frozen: Any = dataclasses.field(default=None, repr=False)  # float32 [N, S, S, 3] in 0..1 -> float32 [N, D]; or None
  folder: str = ""  # its SavedModel, if there is one yet
  prepared_folder: str = ""  # its files prepared for the variant; empty before `prepare`

  def load_frozen(self) -> Any:
    return self.frozen or freeze(load_saved_model(self.folder).embed, self.info.input_px)

  def save(self, folder: str) -> None:
    """Writes the SavedModel and `prepared/` into a folder, which may be remote."""
    with replace_folder(folder) as made:
      if self.folder:
        cache.copy_entry(self.folder, made)
        shutil.rmtree(os.path.join(made, PREPARED_FOLDER), ignore_errors=True)
      else:
        save_trunk(self.frozen, made)
      write_trunk_info(made, self.info)
      if self.prepared_folder:
        cache.copy_entry(self.prepared_folder, os.path.join(made, PREPARED_FOLDER))


def load_stored_trunk(folder: str, info: TrunkInfo) -> Trunk:
  """Loads what `Trunk.save` wrote to a folder, which may be remote.

  `info` is that run's, from `info.json`.
  """
  local = download(folder)
  check_trunk(local, info)
  prepared_folder = find_prepared(local)
  return Trunk(info, folder=local, prepared_folder=prepared_folder if is_intact(prepared_folder, info) else "")


def prepare(trunk: Trunk, variant: Variant, sample: Callable[[], Any] | None = None, *, stored: str = "") -> Trunk:
  """Returns the trunk prepared for a variant, from the cache if possible.

  Raises InputError if this machine cannot run the variant, the runtime cannot run this trunk, or int8 has no sample.

  Args:
    sample: for int8, () -> float32 [K, S, S, 3], 0..1: the images that `variant.calibration` names.
    stored: a folder with the same prepared trunk, or ""; copied if intact, since it may be replaced before its use.
  """
  if trunk.info.variant == variant and trunk.prepared_folder:
    return trunk
  handle, base = trunk.info.handle, trunk.info.base_fingerprint
  if reason := variant.unsupported_reason():
    raise InputError(f"the trunk {handle} cannot be prepared for {variant}: {reason}.")
  runtime = import_runtime(variant.runtime)
  info = trunk.info.with_variant(variant)
  versions = runtime.versions(variant)
  digest = hashlib.sha256(json.dumps([_PREPARATION, versions], sort_keys=True).encode()).hexdigest()
  name = "-".join(filter(None, [variant.runtime, variant.precision, variant.calibration[:16], digest[:16]]))

  def write(folder: str) -> None:
    if is_intact(stored, info):
      cache.copy_entry(stored, folder)
      return
    if variant.precision == INT8 and sample is None:
      raise InputError(
        f"the trunk {handle} in {variant} is damaged or missing, and its calibration images are not available: run"
        " `beam-retrain bottlenecks` again."
      )
    tensors: dict[str, str] = {}
    if variant == Variant(OPENVINO, BFLOAT16):  # the same files: workers cast their weights
      float32 = prepare(trunk, Variant(OPENVINO)).prepared_folder
      for file in FILES[OPENVINO]:
        local_files.link_or_copy(os.path.join(float32, file), os.path.join(folder, file))
    else:
      tensors = runtime.write(trunk.load_frozen(), variant, folder, sample() if sample else None)
    write_prepared_info(folder, info, versions, tensors)

  prepared_folder = cache.get_or_create(f"trunks/{base}/{name}", write)
  return dataclasses.replace(trunk, info=info, prepared_folder=prepared_folder)


def load_trunk(handle: AnyPath, weights: AnyPath | None = None, input_px: int | None = None) -> Trunk:
  """Loads a trunk, from the cache if it was loaded before.

  `save(folder)` writes it for `ImageModelHandler`; `info` has its fingerprint and the length of a bottleneck.

  Args:
    handle: `bundled`, `inception_v3`, a TF Hub handle, a SavedModel folder, or `keras:InceptionV3`.
    weights: a local file, for `keras:` trunks only.
    input_px: side of its input in pixels, for trunks that take any; otherwise it must be the trunk's own.

  Raises:
    InputError: it cannot be found, downloaded or used.
  """
  handle, weights = as_path(handle, "handle"), as_path(weights, "weights") if weights else None
  content, load = _find_source(handle, weights, input_px)
  source = _source_digest(content, input_px) if content else ""
  known = cache.read_source(source) if source else None
  if known and (folder := cache.find(_saved_model_entry(known["fingerprint"]))):
    return Trunk(TrunkInfo(handle, **known, base_fingerprint=known["fingerprint"]), folder=folder)
  load_tensorflow()
  trunk = load()
  info = trunk.info
  if input_px and info.input_px != input_px:
    raise InputError(f"the trunk {handle} takes {info.input_px} x {info.input_px} pixels: leave out --trunk_input_px.")
  if not source:
    return trunk
  folder = cache.get_or_create(_saved_model_entry(info.fingerprint), lambda empty: save_trunk(trunk.frozen, empty))
  cache.write_source(source, {name: getattr(info, name) for name in ("fingerprint", "input_px", "dimensions")})
  return dataclasses.replace(trunk, folder=folder)


def check_handle(handle: str, weights: str | None = None) -> None:
  """Refuses, without TensorFlow, what is no trunk.

  Raises:
    InputError: the handle is of no kind, or the weights are missing or of no use to it.
  """
  if handle.startswith(_KERAS):
    name, names = handle.removeprefix(_KERAS), _names_in_keras()
    if name not in names:
      lower = {each.lower(): each for each in names}
      near = lower[next(iter(difflib.get_close_matches(name.lower(), lower, n=1)), "inceptionv3")]
      raise InputError(f"{flag('trunk')} {handle}: keras.applications has no {name!r}: try keras:{near}.")
    if weights and not os.path.isfile(weights):
      raise InputError(f"--trunk_weights {weights}: no such file: {_give_weights(name)}.")
  elif weights:
    raise InputError(
      f"--trunk_weights is for a trunk of Keras, not for {handle}: give {flag('trunk')} keras:InceptionV3 with it, or"
      " leave it out."
    )
  elif os.path.isfile(handle) and handle.endswith(".h5"):
    typed = f"{flag('trunk')} keras:InceptionV3 --trunk_weights {shlex.quote(handle)}"
    raise InputError(f"{flag('trunk')} {handle} is a file of weights, not a trunk: give {typed}.")
  elif not (handle in (BUNDLED, INCEPTION_V3) or handle.startswith(_REMOTE) or os.path.isdir(handle)):
    raise InputError(f"{flag('trunk')} {handle} is neither a folder nor a TF Hub handle: give one of {TRUNK_HELP}.")


def _names_in_keras() -> list[str]:
  """Returns what keras.applications exports, without the seconds that importing takes."""
  exports = importlib.metadata.distribution("keras").locate_file("keras/applications/__init__.py")
  text = Path(str(exports)).read_text()
  return re.findall(r"\b([A-Z]\w+) as \1\b", text)


def _give_weights(name: str) -> str:
  where = f", such as {WEIGHTS_ADDRESS}" if name == "InceptionV3" else ""
  return f"give the .h5 file of {name} without its top{where}"


def _find_source(handle: str, weights: str | None, input_px: int | None) -> tuple[list[str], Callable[[], Trunk]]:
  """Returns (what identifies the trunk, if known before loading; its loader)."""
  check_handle(handle, weights)
  if handle == BUNDLED:
    content = [BUNDLED, local_files.sha256(str(BUNDLED_WEIGHTS))] if BUNDLED_WEIGHTS.exists() else []
    return content, lambda: _load_bundled(content)
  if handle.startswith(_KERAS):
    content = [handle, local_files.sha256(weights)] if weights and os.path.isfile(weights) else []
    return content, lambda: _load_keras(handle, weights, input_px)
  path = handle if os.path.isdir(handle) else _resolve_hub(HUB_INCEPTION_V3 if handle == INCEPTION_V3 else handle)
  content = [_SAVED_MODEL, fingerprint_folder(path)]
  return content, lambda: _load_saved_model(handle, path, input_px, content)


def _saved_model_entry(fingerprint: str) -> str:
  return f"trunks/{fingerprint}/saved_model"


def _source_digest(content: list[str], input_px: int | None) -> str:
  """Returns a trunk source's key in the cache."""
  versions = [_PREPARATION, *map(importlib.metadata.version, ("tensorflow", "keras"))]
  return hashlib.sha256(json.dumps([content, input_px, versions]).encode()).hexdigest()


def _freeze(handle: str, made_of: list[str], embed: Callable[[Any], Any], input_px: int) -> Trunk:
  frozen = freeze(embed, input_px)
  fingerprint = hashlib.sha256(json.dumps([*made_of, input_px]).encode()).hexdigest()
  return Trunk(TrunkInfo(handle, fingerprint, input_px, int(frozen.outputs[0].shape[1]), fingerprint), frozen)


def _load_bundled(content: list[str]) -> Trunk:
  from beam_retrain.transforms.core.models import inception

  model = inception.load_bundled_trunk()
  return _freeze(BUNDLED, content, lambda images: model(images, training=False), inception.BUNDLED_INPUT_PX)


def _load_keras(handle: str, weights: str | None, input_px: int | None) -> Trunk:
  import keras

  name = handle.removeprefix(_KERAS)
  application = getattr(keras.applications, name)
  if not input_px:
    input_px = int(application(weights=None).input_shape[1])
  try:
    model = application(include_top=False, pooling="avg", weights=weights or "imagenet")
  except Exception as error:
    first = first_line(error)
    if weights:
      what = f"--trunk_weights {weights} does not fit {name} without its top"
      raise InputError(f"{what} ({first.rstrip('.')}): {_give_weights(name)}.") from error
    raise InputError(
      f"the ImageNet weights of {name} cannot be downloaded ({first}): give a local copy with --trunk_weights FILE, or"
      f" use {flag('trunk')} bundled, which needs no network."
    ) from error
  scale = sys.modules[application.__module__].preprocess_input  # 0..255 -> the network's own range
  digest = hashlib.sha256()
  for variable in model.weights:
    digest.update(variable.path.encode() + variable.numpy().tobytes())
  made_of = [f"{_KERAS}{name}", digest.hexdigest()]
  try:
    return _freeze(handle, made_of, lambda images: model(scale(images * 255.0), training=False), input_px)
  except ValueError as error:
    raise InputError(
      f"--trunk_input_px {input_px} is too small for {name}: give a larger size, or leave it out."
    ) from error


def _load_saved_model(handle: str, path: str, input_px: int | None, content: list[str]) -> Trunk:
  import tensorflow as tf
  import tensorflow_hub as hub

  if not any(os.path.exists(os.path.join(path, name)) for name in ("saved_model.pb", "saved_model.pbtxt")):
    raise InputError(f"{flag('trunk')} {handle}: {path} holds no saved_model.pb: give the folder of a SavedModel.")
  try:
    is_of_tensorflow_1 = os.path.exists(os.path.join(path, _TENSORFLOW_1_MODULE))
    with plain_path(path) as plain:
      loaded = _load_tensorflow_1_module(plain) if is_of_tensorflow_1 else hub.load(plain)
  except Exception as error:
    raise InputError(
      f"{flag('trunk')} {handle} cannot be loaded as a SavedModel ({first_line(error)}): download or export it again."
    ) from error
  embed, shape = _embedding_function(loaded, handle)
  own_px = shape[1] if shape is not None and shape.rank == 4 else None
  try:
    return _freeze(handle, content, embed, int(own_px or input_px or 299))
  except (ValueError, TypeError, tf.errors.OpError) as error:
    first = first_line(error)
    raise InputError(
      f"{flag('trunk')} {handle} does not take a batch of images [N, H, W, 3] ({first}): give an image feature-vector"
      " model."
    ) from error


def _load_tensorflow_1_module(path: str) -> Any:
  """Loads a TF Hub module of TensorFlow 1, such as `retrain.py`'s default.

  TensorFlow 2 also loads those, but cannot make constants of their reference variables.
  """
  import tensorflow as tf

  v1 = tf.compat.v1
  with tf.Graph().as_default() as graph, v1.Session() as session:
    signature = v1.saved_model.load(session, [], path).signature_def["default"]
    (tensor,) = signature.inputs.values()
    result = signature.outputs["default"].name
    constants = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), [result.split(":")[0]])
  spec = tf.TensorSpec(tensor.tensor_shape, tf.float32)

  def embed(images: Any) -> Any:
    (vectors,) = tf.graph_util.import_graph_def(constants, input_map={tensor.name: images}, return_elements=[result])
    return vectors

  module = tf.Module()
  module.embed = tf.function(embed, input_signature=[spec])
  return module


def _embedding_function(loaded: Any, handle: str) -> tuple[Callable[[Any], Any], Any]:
  """Returns a SavedModel's embedding function and its input shape, if known.

  Three kinds are supported: ours (`embed`), TF Hub's reusable SavedModels (callable), and older modules or plain
  exports with one signature, `default` or `serving_default`, of one input.
  """
  if hasattr(loaded, "embed"):
    return loaded.embed, loaded.embed.input_signature[0].shape
  signatures = getattr(loaded, "signatures", {})
  signature: Any = next((signatures[name] for name in ("default", "serving_default") if name in signatures), None)
  inputs = signature.structured_input_signature[1] if signature else {}
  shape = next(iter(inputs.values())).shape if len(inputs) == 1 else None
  if callable(loaded):
    return loaded, shape
  if shape is None:
    raise InputError(
      f"{flag('trunk')} {handle} is a SavedModel without a function of images: give a feature-vector model."
    )
  (input_name,) = inputs

  def embed(images: Any) -> Any:
    outputs = signature(**{input_name: images})
    if "default" in outputs:
      return outputs["default"]
    if len(outputs) == 1:
      return next(iter(outputs.values()))
    raise InputError(
      f"{flag('trunk')} {handle} returns {sorted(outputs)}, not one vector: give a feature-vector model."
    )

  return embed, shape


def _resolve_hub(url: str) -> str:
  """Returns the folder of a TF Hub handle, downloaded unless cached."""
  load_tensorflow()
  import tensorflow_hub as hub

  try:
    with scratch.outside():  # where its cache is
      path: str = hub.resolve(url)
  except Exception as error:
    first = first_line(error)
    raise InputError(
      f"TF Hub cannot be reached for {url} ({first}): set TFHUB_CACHE_DIR to a folder that holds the module, or use"
      f" {flag('trunk')} keras:InceptionV3 with --trunk_weights FILE, which is {WEIGHTS_ADDRESS}, brought here from"
      f" a machine that has a network, or {flag('trunk')} bundled."
    ) from error
  return path
