"""The data sets of `--data`: `digits`, `mnist` or a path.

Runs where the job is started; workers download nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException

import numpy as np
import PIL.Image

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.system import local_files

DIGITS, MNIST = "digits", "mnist"

MNIST_MIRRORS = (
  "https://ossci-datasets.s3.amazonaws.com/mnist/",
  "https://storage.googleapis.com/cvdf-datasets/mnist/",
  "http://yann.lecun.com/exdb/mnist/",
)
# The MD5 published with the files: detects damaged files and error pages of mirrors.
MNIST_MD5 = {
  "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
  "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
  "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
  "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_MAX_DOWNLOAD_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 16

# As in MNIST, a digit fits a box of 20 x 20 px, whose centre of mass is the middle of 28 x 28 px.
_BOX_PX, _SIDE_PX = 20, 28
_DIGITS_MAX = 16  # scikit-learn's maximum: ink in all 16 px of a cell of the scan
_TESTING_STRIDE = 6  # of each label, every sixth image is for testing


def resolve(data: str, folder: str) -> str:
  """Returns the path of a data set."""
  if data == DIGITS:
    return digits(folder)
  if data == MNIST:
    return mnist(folder)
  if "://" not in data and not os.path.exists(data):
    raise InputError(
      f"{data} does not exist: give {DIGITS}, {MNIST}, or the path of a folder of images or of a CSV manifest."
    )
  return data


def digits(folder: str) -> str:
  """Writes scikit-learn's 1,797 handwritten digits as IDX files; returns `folder`.

  Each image of 8 x 8 px, which its digit fills from top to bottom, is scaled (bicubic) to 20 x 20 px and put with its
  centre of mass in the middle of 28 x 28 px, as in MNIST. Every sixth image of a label is for testing: 1,501 and 296.
  """
  values = _read_digits()
  images = np.stack([like_mnist(image.reshape(8, 8)) for image in values[:, :-1]])
  labels = values[:, -1].astype(np.uint8)
  testing = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    testing[np.flatnonzero(labels == label)[_TESTING_STRIDE - 1 :: _TESTING_STRIDE]] = True
  os.makedirs(folder, exist_ok=True)
  for prefix, chosen in (("train", ~testing), ("t10k", testing)):
    _write(os.path.join(folder, f"{prefix}-images-idx3-ubyte"), encode_idx(images[chosen]))
    _write(os.path.join(folder, f"{prefix}-labels-idx1-ubyte"), encode_idx(labels[chosen]))
  return folder


def _read_digits() -> np.ndarray:
  """Returns what `sklearn.datasets.load_digits` reads: float64 [N, 65], the label last.

  From its file: importing it takes as long as everything else that `run` does with the digits.
  """
  package = importlib.util.find_spec("sklearn")
  for folder in (package and package.submodule_search_locations) or ():
    with contextlib.suppress(FileNotFoundError):
      return np.loadtxt(os.path.join(folder, "datasets", "data", "digits.csv.gz"), delimiter=",")
  raise InputError(f"--data {DIGITS} needs scikit-learn, which holds the images: run `pip install scikit-learn`.")


def like_mnist(image: np.ndarray) -> np.ndarray:
  """Resizes float [8, 8], 0..16 (ink), to uint8 [28, 28], 0..255."""
  bright = PIL.Image.fromarray((image * (255 / _DIGITS_MAX)).astype(np.float32))
  box = np.asarray(bright.resize((_BOX_PX, _BOX_PX), PIL.Image.Resampling.BICUBIC))
  box = np.rint(np.clip(box, 0, 255)).astype(np.uint8)  # bicubic overshoots at edges
  placed = np.zeros((_SIDE_PX, _SIDE_PX), np.uint8)
  top, left = (_offset(box.sum(axis=other, dtype=np.float64)) for other in (1, 0))
  placed[top : top + _BOX_PX, left : left + _BOX_PX] = box
  return placed


def _offset(ink: np.ndarray) -> int:
  """Returns where to put `ink`, float [20], for a centred mass, uncut."""
  centre = float(np.average(np.arange(_BOX_PX) + 0.5, weights=ink))
  return int(np.clip(round(_SIDE_PX / 2 - centre), 0, _SIDE_PX - _BOX_PX))


def mnist(
  folder: str,
  *,
  mirrors: Sequence[str] = MNIST_MIRRORS,
  checksums: Mapping[str, str] = MNIST_MD5,
  timeout_secs: float = 20,
  max_secs: float = 600,
) -> str:
  """Downloads the four files of MNIST, if missing; returns `folder`.

  A mirror, whose address ends in `/`, may be silent for `timeout_secs`; a file may take `max_secs`.
  """
  os.makedirs(folder, exist_ok=True)
  for name, checksum in checksums.items():
    path = os.path.join(folder, name)
    if not (os.path.exists(path) and _md5(local_files.read_bytes(path)) == checksum):
      _write(path, _download(name, checksum, mirrors, timeout_secs, max_secs))
  return folder


def _md5(data: bytes) -> str:
  return hashlib.md5(data, usedforsecurity=False).hexdigest()  # else FIPS systems forbid it


def _download(name: str, checksum: str, mirrors: Sequence[str], timeout_secs: float, max_secs: float) -> bytes:
  faults = []
  for mirror in mirrors:
    say(f"downloading {mirror}{name}")
    try:
      data = _fetch(mirror + name, timeout_secs, time.monotonic() + max_secs)
    except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
      faults.append(f"{mirror}: {error}")
      continue
    actual = _md5(data)
    if actual == checksum:
      return data
    faults.append(f"{mirror}: {len(data)} bytes of MD5 {actual}, expected {checksum}")
  raise InputError(
    f"{name} cannot be downloaded ({'; '.join(faults)}): check the network and run the command again, or give a folder"
    f" with the four MNIST files as --data; --data {DIGITS} needs no network."
  )


def _fetch(address: str, timeout_secs: float, deadline: float) -> bytes:
  chunks, size = [], 0
  with urllib.request.urlopen(address, timeout=timeout_secs) as response:
    while chunk := response.read(_CHUNK_BYTES):
      chunks.append(chunk)
      size += len(chunk)
      if size > _MAX_DOWNLOAD_BYTES:
        raise OSError(f"more than {_MAX_DOWNLOAD_BYTES} bytes came")
      if time.monotonic() > deadline:
        raise TimeoutError(f"too slow: {size} bytes so far")
  return b"".join(chunks)


def _write(path: str, data: bytes) -> None:
  """Writes a file by a rename, unless it has the same bytes.

  So an unchanged file keeps its time, and the stages that read it stay valid.
  """
  if not (os.path.exists(path) and local_files.read_bytes(path) == data):
    local_files.write_bytes(path, data)
