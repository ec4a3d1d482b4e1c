"""Writes, loads and fingerprints trunks as SavedModel folders.

`embed`: float32 [N, S, S, 3], 0..1 -> float32 [N, D]. Its weights are constants of the graph.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

from beam_retrain.transforms.core.errors import InputError, first_line
from beam_retrain.transforms.core.runtimes.prepared import PREPARED_FOLDER, REWRITE
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.imports import load_tensorflow
from beam_retrain.transforms.core.system.plain_path import plain_path

if TYPE_CHECKING:
  import tensorflow as tf

TRUNK_FILE = "trunk.json"
_DIGEST = "saved_model_sha256"
BUNDLED_WEIGHTS = pathlib.Path(__file__).parents[1] / "bundled_trunk" / "weights.npz"


def load_saved_model(path: str) -> Any:
  """Loads a SavedModel written by `save_trunk` or the trainer's export."""
  load_tensorflow()
  import tensorflow as tf

  try:
    with plain_path(path) as plain:
      loaded = tf.saved_model.load(plain)
  except Exception as error:
    raise InputError(f"{path} cannot be loaded as a SavedModel ({first_line(error)}): {REWRITE}.") from error
  if not (hasattr(loaded, "embed") or hasattr(loaded, "score_images")):
    raise InputError(f"{path} is a SavedModel, but neither a trunk nor a model of beam-retrain: give another folder.")
  return loaded


def freeze(embed: Any, input_px: int) -> tf.types.experimental.ConcreteFunction:
  """Traces `embed` and turns its variables into constants.

  `embed`: [N, S, S, 3] -> [N, D], S = `input_px`.
  """
  import tensorflow as tf

  from beam_retrain.transforms.core.system.tensorflow_internals import convert_variables_to_constants_v2

  signature = tf.TensorSpec([None, input_px, input_px, 3], tf.float32, name="images")
  traced = tf.function(lambda images: tf.cast(embed(images), tf.float32)).get_concrete_function(signature)
  shape = traced.outputs[0].shape
  if shape.rank != 2 or shape[1] is None:
    raise InputError(
      f"the trunk gives {shape} for a batch of images, not one vector each: give a feature-vector model, such as"
      " Inception v3 without its top and with average pooling."
    )
  return convert_variables_to_constants_v2(traced, lower_control_flow=False)


def save_trunk(frozen: tf.types.experimental.ConcreteFunction, folder: str) -> None:
  """Writes a frozen trunk with `embed` and the signature `serving_default`.

  Raises OSError if the folder cannot be written.
  """
  import tensorflow as tf

  spec = frozen.inputs[0]
  module = tf.Module()

  @tf.function(input_signature=[tf.TensorSpec(spec.shape, tf.float32, name="images")])
  def embed(images: tf.Tensor) -> tf.Tensor:
    (bottleneck,) = frozen(images)
    return bottleneck

  @tf.function(input_signature=[tf.TensorSpec(spec.shape, tf.float32, name="images")])
  def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"bottleneck": embed(images)}

  module.embed = embed
  try:
    os.makedirs(folder, exist_ok=True)
    with plain_path(folder) as plain:
      tf.saved_model.save(module, plain, signatures={"serving_default": serve})
  except tf.errors.OpError as error:
    raise OSError(errno.ENOSPC, error.message.rpartition("; ")[2], folder) from error


def write_trunk_info(folder: str, info: TrunkInfo) -> None:
  """Writes `trunk.json` beside a trunk's SavedModel, whose digest it holds."""
  card = {**info.to_json(), _DIGEST: fingerprint_folder(folder, (PREPARED_FOLDER, TRUNK_FILE))}
  local_files.write_text(os.path.join(folder, TRUNK_FILE), json.dumps(card, indent=2))  # it may be a link


def check_trunk(folder: str, trunk: TrunkInfo) -> bool:
  """Checks that a folder holds the SavedModel of a trunk.

  Returns whether it has a digest to check it by, as since version 0.5. Raises InputError if it is another trunk, or its
  files have changed since they were written.
  """
  try:
    card = json.loads(pathlib.Path(folder, TRUNK_FILE).read_bytes())
    is_same, digest = TrunkInfo.from_json(card) == trunk, str(card.get(_DIGEST, ""))
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    is_same, digest = False, ""
  if not is_same:
    raise InputError(f"{folder} is no longer the trunk {trunk.handle} that made its bottlenecks: {REWRITE}.")
  if digest and fingerprint_folder(folder, (PREPARED_FOLDER, TRUNK_FILE)) != digest:
    raise InputError(f"the SavedModel in {folder} has changed since it was written: {REWRITE}.")
  return bool(digest)


def fingerprint_folder(folder: str, without: tuple[str, ...] = (PREPARED_FOLDER,)) -> str:
  """Returns the SHA-256, 64 hex digits, of a folder's files and names.

  `without` are names in it; a prepared trunk is derived from the rest.
  """
  digest = hashlib.sha256()
  for parent, folders, names in os.walk(folder):
    left_out = without if parent == folder else ()
    folders[:] = sorted(set(folders).difference(left_out))
    for name in sorted(set(names).difference(left_out)):
      path = os.path.join(parent, name)
      digest.update(os.path.relpath(path, folder).encode() + b"\0")
      digest.update(bytes.fromhex(local_files.sha256(path)))
  return digest.hexdigest()
