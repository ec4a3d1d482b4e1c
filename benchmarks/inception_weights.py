"""A full-size, really trained Inception v3 for `--trunk_weights`, made of what an npm package ships.

    python -m benchmarks.inception_weights --output inception_v3.weights.h5

nsfwjs 4.4.0 (MIT License, Copyright (c) 2019 Infinite Red, Inc.) holds an Inception v3 that its authors trained on
photos, not the ImageNet one: for benchmarks, as a frozen extractor of image features. npm fetches the package from the
registry that it is set to; its checksum is pinned. No code of it runs, and nothing of it is unpacked to disk.

The layout is TensorFlow.js's: `model.min.js` holds the weights manifest, the names, shapes and ranges of all arrays in
the order of their bytes, one byte a number; the bytes are cut into shards, JavaScript modules that export base64.

Run whole, once: all 376 arrays equal those of the file behind docs/results.md, bit for bit, and
the package's graph (inputs, strides, padding and epsilon of every layer up to `mixed10`) is that of Keras.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.exit_codes import ExitCode, run_command
from beam_retrain.transforms.core.run.flags import ArgumentParser, parse_flags
from beam_retrain.transforms.core.system.imports import load_tensorflow

if TYPE_CHECKING:
  import keras

PACKAGE, VERSION = "nsfwjs", "4.4.0"
# As npm's lock files have it: the SHA-512 of the tarball, in base64.
INTEGRITY = "sha512-krC1fgeTLXtZwgdpKJ0jm7hqv0gTSRQQRL+FhOaxaJ9Wj92t42BO3csO2odwgTAgZgf2RvkwPtp0R8Aa7dc+MA=="
MODEL_FOLDER = "package/dist/models/inception_v3/"
SUFFIX = ".weights.h5"

_MODULE = ".min.js"
_SECONDS_TO_FETCH = 600
_MANIFEST = "weightsManifest:"
_KEY = re.compile(r"(?<=[{,])(\w+):")
_BARE_POINT = re.compile(r"(?<=[:\[,-])\.(?=\d)")
_SHARD = re.compile(r'\.exports="([A-Za-z0-9+/]+={0,2})"')
_TOP = re.compile(r"dense_\d+/(kernel|bias)")
_NPM_CODE = re.compile(r"npm (error|ERR!) (code|syscall|errno)\b")
_NUMBERED_LAYER = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?")


def check_integrity(tarball: bytes, integrity: str = INTEGRITY) -> None:
  """Raises `InputError` unless the tarball has the checksum `integrity` ("sha512-" and base64)."""
  found = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
  if found != integrity:
    raise InputError(
      f"the {PACKAGE} {VERSION} that npm fetched has the checksum {found[:20]}..., not {integrity[:20]}...: it is"
      " damaged or another package; clear npm's cache, or set npm to another registry."
    )


def read_modules(tarball: bytes) -> dict[str, str]:
  """Reads the files of the model's folder out of a package, in memory.

  Args:
    tarball: a gzip-compressed tar archive. Links and everything outside the folder are passed over.

  Returns:
    File name (without folder) -> text.

  Raises:
    InputError: it is no such archive.
  """
  modules = {}
  try:
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r|gz") as archive:
      for member in archive:
        folder, _, name = member.name.rpartition("/")
        file = archive.extractfile(member) if member.isfile() and f"{folder}/" == MODEL_FOLDER else None
        if file:
          modules[name] = file.read().decode()
  except (tarfile.TarError, UnicodeDecodeError) as error:
    raise InputError(f"the package {PACKAGE} cannot be read as an archive ({error}): fetch it again.") from error
  return modules


def read_manifest(module: str) -> list[dict[str, Any]]:
  """Reads the weights manifest, a JavaScript literal, by writing it as the JSON that it was made of.

  Returns:
    Groups of `paths` (shards) and `weights` (`name`, `shape`, `dtype`, `quantization`: `min`, `scale`, `dtype`).

  Raises:
    ValueError: it is not there, or is no literal.
  """
  _, _, literal = module.partition(_MANIFEST)
  literal = _BARE_POINT.sub("0.", _KEY.sub(r'"\1":', literal))
  groups: list[dict[str, Any]] = json.JSONDecoder().raw_decode(literal)[0]
  return groups


def read_shard(module: str) -> bytes:
  """Returns the bytes that a shard's module exports. Raises `ValueError` where it is not exactly one text."""
  (text,) = _SHARD.findall(module)
  return base64.b64decode(text)


def dequantise(codes: np.ndarray, scale: float, minimum: float) -> np.ndarray:
  """Returns `codes * scale + minimum` of uint8 codes, float32.

  Every step is rounded to float32, as in the file behind docs/results.md. TensorFlow.js rounds
  once, at the end: that differs by at most 1.2e-6 in this model.
  """
  return codes.astype(np.float32) * np.float32(scale) + np.float32(minimum)


def read_weights(modules: Mapping[str, str]) -> dict[str, np.ndarray]:
  """Returns all arrays of a model, float32, under the package's names (`conv2d_1/kernel`).

  Raises:
    InputError: a file is missing, or they do not fit together.
  """
  arrays: dict[str, np.ndarray] = {}
  try:
    for group in read_manifest(modules[f"model{_MODULE}"]):
      data = b"".join(read_shard(modules[f"{path}{_MODULE}"]) for path in group["paths"])
      start = 0
      for entry in group["weights"]:
        name, shape, how = entry["name"], entry["shape"], entry["quantization"]
        if (entry["dtype"], how["dtype"]) != ("float32", "uint8"):
          raise ValueError(f"{name} is {entry['dtype']} kept as {how['dtype']}, not float32 kept as uint8")
        codes = np.frombuffer(data, np.uint8, math.prod(shape), start).reshape(shape)
        arrays[name] = dequantise(codes, how["scale"], how["min"])
        start += codes.size
      if start != len(data):
        raise ValueError(f"the arrays take {start:,} bytes, the shards have {len(data):,}")
  except (KeyError, TypeError, ValueError) as error:
    raise InputError(
      f"the model in the package is not laid out as that of {PACKAGE} {VERSION} ({type(error).__name__}: {error}):"
      " fetch that version."
    ) from error
  return arrays


def variables_by_name(model: keras.Model) -> dict[str, keras.Variable]:
  """Returns a Keras model's variables under the names that the package has for them.

  Both number the layers of a kind in the order in which they were made. The package begins at 1; Keras goes on where
  the process's last model ended, so that only the order counts. Any other layer's variables keep their own paths,
  which the package does not have.
  """
  numbered: dict[str, dict[int, keras.Layer]] = {}
  found = {}
  for layer in model.layers:
    if match := _NUMBERED_LAYER.fullmatch(layer.name):
      numbered.setdefault(match[1], {})[int(match[2] or 0)] = layer
    else:
      found.update({variable.path: variable for variable in layer.weights})
  for kind, layers in numbered.items():
    for position, number in enumerate(sorted(layers), 1):
      found.update({f"{kind}_{position}/{variable.name}": variable for variable in layers[number].weights})
  return found


def fill(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
  """Sets every variable of a Keras model to the package's array; that one's own top (`dense_N`) is left out.

  Raises:
    InputError: a name without its counterpart, on either side, or with another shape; nothing has been set then.
  """
  variables = variables_by_name(model)
  shapes = {name: array.shape for name, array in arrays.items() if not _TOP.fullmatch(name)}
  expected = {name: tuple(variable.shape) for name, variable in variables.items()}
  if wrong := sorted(name for name in shapes.keys() | expected.keys() if shapes.get(name) != expected.get(name)):
    raise InputError(
      f"{len(wrong)} arrays of the package do not map to Keras's Inception v3, the first is {wrong[0]} (shape in the"
      f" package: {shapes.get(wrong[0])}, in Keras: {expected.get(wrong[0])}): take {PACKAGE} {VERSION} and the Keras"
      " of constraints.txt."
    )
  for name, variable in variables.items():
    variable.assign(arrays[name])


def save(model: keras.Model, output: Path) -> None:
  """Writes a model's weights in Keras's format; `output` appears whole or not at all."""
  with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
    whole = Path(folder) / output.name
    model.save_weights(whole)
    whole.replace(output)


def fetch() -> bytes:
  """Has npm fetch the package from its registry, and returns the tarball.

  Raises:
    InputError: no npm, it failed, or it fetched something else.
  """
  npm, spec = shutil.which("npm"), f"{PACKAGE}@{VERSION}"
  if not npm:
    raise InputError(f"npm is not on the PATH: install Node.js with npm, which fetches {spec}.")
  with tempfile.TemporaryDirectory() as folder:
    command = [npm, "pack", spec, "--ignore-scripts"]
    try:
      done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS_TO_FETCH)
    except subprocess.TimeoutExpired as error:
      raise InputError(f"`npm pack {spec}` took over {_SECONDS_TO_FETCH} seconds: look at its registry.") from error
    if done.returncode:
      said = next((line for line in done.stderr.splitlines() if not _NPM_CODE.match(line)), f"code {done.returncode}")
      raise InputError(f"`npm pack {spec}` failed ({said}): see that npm reaches its registry.")
    names = sorted(path.name for path in Path(folder).iterdir())
    if names != [f"{PACKAGE}-{VERSION}.tgz"]:
      raise InputError(f"`npm pack {spec}` fetched {', '.join(names) or 'nothing'}: set npm to another registry.")
    return (Path(folder) / names[0]).read_bytes()


def run(argv: Sequence[str]) -> int:
  parser = ArgumentParser(prog="inception_weights", description=__doc__)
  parser.add_argument("--output", required=True, type=Path, metavar="FILE", help=f"its name ends in {SUFFIX}")
  output: Path = parse_flags(parser, argv).output
  if not output.name.endswith(SUFFIX) or output.is_dir() or output.parent.is_file():
    raise InputError(f"--output {output}: give the name of a file that ends in {SUFFIX}: Keras reads its format there.")
  output.parent.mkdir(parents=True, exist_ok=True)
  tarball = fetch()
  check_integrity(tarball)
  arrays = read_weights(read_modules(tarball))
  load_tensorflow()
  import keras

  model = keras.applications.InceptionV3(include_top=False, pooling="avg", weights=None)
  fill(model, arrays)
  save(model, output)
  print(
    f"{output}: Inception v3 without its top, {len(model.weights)} arrays, {model.count_params():,} numbers, from"
    f" {PACKAGE} {VERSION} (MIT License); use it with --trunk keras:InceptionV3 --trunk_weights {output}"
  )
  return ExitCode.DONE


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
