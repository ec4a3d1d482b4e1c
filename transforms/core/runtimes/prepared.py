"""A prepared trunk: a folder that a worker runs as it lies, with nothing left to optimise. No Beam, no TensorFlow here.

| file                      | runtime    | what                                                                      |
|---------------------------|------------|---------------------------------------------------------------------------|
| `graph.pb`                | tensorflow | frozen graph, folded, fused and, for bfloat16, cast ahead of time         |
| `model.xml`, `model.bin`  | openvino   | OpenVINO's own format                                                     |
| `card.json`               | both       | kind, fingerprint, input_px, dimensions, versions, SHA-256 of the files   |

In a trunk's or a model's folder it is `prepared/`, beside the SavedModel that it was made from, or in `M/trunk`.
The numbers are the same bits for any number of threads, and for any batch that a image is in; of TensorFlow's because
`beam_retrain.transforms.core` has it compute with oneDNN.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.runtimes.kinds_here import why_not_here
from beam_retrain.transforms.core.runtimes.variant import TENSORFLOW, TrunkKind, read_kind

PREPARED_FOLDER = "prepared"
CARD_FILE = "card.json"
_FILES = {TENSORFLOW: ("graph.pb",)}
_OPENVINO_FILES = ("model.xml", "model.bin")


@dataclasses.dataclass(frozen=True)
class PreparedTrunk:
  """A prepared trunk, loaded.

  Attributes:
    kind: what computes it.
    input_px: S.
    dimensions: D.
    embed: float32 [N, S, S, 3], 0..1, an array or a tensor, any N -> float32 [N, D]; several threads may call it.
  """

  kind: TrunkKind
  input_px: int
  dimensions: int
  embed: Callable[[Any], np.ndarray]


def find_prepared(folder: str) -> str:
  """Returns the prepared trunk's folder in a trunk's or a model's folder, or "" where there is none."""
  path = os.path.join(folder, PREPARED_FOLDER)
  return path if os.path.exists(os.path.join(path, CARD_FILE)) else ""


def read_card(folder: str) -> dict[str, Any]:
  """Returns what `card.json` says.

  Raises:
    InputError: it is damaged or not there.
  """
  path = os.path.join(folder, CARD_FILE)
  try:
    with open(path, encoding="utf-8") as file:
      card: dict[str, Any] = json.load(file)
    return card
  except (OSError, ValueError) as error:
    raise InputError(f"{path} cannot be read ({error}): make the trunk again.") from error


def write_card(folder: str, kind: TrunkKind, card: Mapping[str, Any], more: Mapping[str, Any]) -> None:
  """Writes `card.json` for the runtime's files in the folder.

  Args:
    folder: where they are.
    kind: theirs.
    card: fingerprint, input_px and dimensions.
    more: what the runtime has to say, `versions` for one.
  """
  said = {
    **kind.fields,
    **{name: card[name] for name in ("fingerprint", "input_px", "dimensions")},
    **more,
    "files": {name: _hash_file(os.path.join(folder, name)) for name in files_of(kind)},
  }
  with open(os.path.join(folder, CARD_FILE), "w", encoding="utf-8") as file:
    json.dump(said, file, indent=2)


def is_whole(folder: str) -> bool:
  """Says whether a prepared trunk is there, in a folder that may be "", and its files are what they were."""
  try:
    return bool(folder) and not _damaged_file(folder, read_card(folder))
  except InputError:
    return False


def _damaged_file(folder: str, card: Mapping[str, Any]) -> str:
  """Returns the path of a file that is not what the card says of it; "": there is none."""
  for name, digest in card["files"].items():
    path = os.path.join(folder, os.path.basename(name))
    if not os.path.exists(path) or _hash_file(path) != digest:
      return path
  return ""


def files_of(kind: TrunkKind) -> tuple[str, ...]:
  return _FILES.get(kind.runtime, _OPENVINO_FILES)


def load_prepared(folder: str, threads: int = 0, batch_size: int = 32) -> PreparedTrunk:
  """Loads a prepared trunk in under three seconds, first batch and the full Inception v3 included.

  Args:
    folder: the one with `card.json`.
    threads: of this process; 0 leaves it to the runtime.
    batch_size: images in most calls: OpenVINO's graph is made for as many, and fewer are padded.

  Raises:
    InputError: this machine cannot run it, or it is damaged.
  """
  card = read_card(folder)
  kind = read_kind(card)
  if why := why_not_here(kind.runtime, kind.precision):
    raise InputError(f"the trunk {folder} was prepared for {kind}, and not for {platform.node()}: {why}.")
  if path := _damaged_file(folder, card):
    raise InputError(f"{path} is damaged or not there: make the trunk again.")
  if kind.runtime == TENSORFLOW:
    from beam_retrain.transforms.core.runtimes.tensorflow import load
  else:
    from beam_retrain.transforms.core.runtimes.openvino import load
  return PreparedTrunk(kind, int(card["input_px"]), int(card["dimensions"]), load(folder, card, threads, batch_size))


def as_array(images: Any) -> np.ndarray:
  """float32 [N, S, S, 3], an array or TensorFlow's tensor -> an array of the same memory, where that lies in order."""
  # A tensor's own numpy() would copy; it has a buffer, which does not.
  return np.ascontiguousarray(images if isinstance(images, np.ndarray) else np.asarray(memoryview(images)), np.float32)


def _hash_file(path: str) -> str:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
