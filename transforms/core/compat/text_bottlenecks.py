"""Names and contents of text bottlenecks in `retrain.py`'s `--bottleneck_dir`.

One file per image, `<class folder>/<image>_<module>.txt` (the earliest versions: `<image>.txt`), with the vector as
decimal numbers separated by commas. `<module>` is the handle of the TF Hub module, made fit for a file name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from beam_retrain.transforms.core.errors import InputError

NO_MODULE = ""
"""Module of files whose names have none."""

_NAME = re.compile(r".*\.(?:jpe?g|png)(?:_(?P<module>.+))?\.txt", re.IGNORECASE | re.DOTALL)
_VERSION = re.compile(r"~\d+$")


def module_name(handle: str) -> str:
  """Returns a module's handle as in file names: `https~tfhub.dev~google~x~1`."""
  return re.sub(r"://|[/:\\]", "~", handle)


def module_of_file(name: str) -> str | None:
  """Returns a text bottleneck's module, or None for other files.

  `NO_MODULE` if its name has none. Only `retrain.py`'s image extensions count.
  """
  match = _NAME.fullmatch(name)
  return (match["module"] or NO_MODULE) if match else None


def text_name(image: str, module: str) -> str:
  """Returns the file name of an image's text bottleneck."""
  return f"{image}_{module}.txt" if module else f"{image}.txt"


def choose_module(modules: Collection[str], handles: Sequence[str], folder: str) -> str:
  """Returns which of a folder's modules is the current trunk's.

  That is the one named like the trunk; or the only other version of the same TF Hub module; or the only one in the
  folder, since a trunk may have been moved. `handles` are names of the trunk, the user's first.

  Raises:
    InputError: there are several, none of them named like the trunk.
  """
  names = [module_name(handle) for handle in handles]
  if exact := [name for name in names if name in modules]:
    return exact[0]
  if len(modules) == 1:
    return next(iter(modules))
  if len(versions := [module for module in modules if is_module_of(module, handles)]) == 1:
    return versions[0]
  listed = ", ".join(repr(module) if module else "files without a module" for module in sorted(versions or modules))
  raise InputError(
    f"{folder} has text bottlenecks of several modules ({listed}), none of them named like the trunk {handles[0]!r}:"
    " move those of other trunks elsewhere."
  )


def is_module_of(module: str, handles: Sequence[str]) -> bool:
  """Returns whether a module is named like the trunk, in any version."""
  plain = _VERSION.sub("", module)
  return any(plain == _VERSION.sub("", module_name(handle)) for handle in handles)


def parse_vector(text: bytes) -> np.ndarray | None:
  """Returns a text bottleneck's numbers, float32 [n]; None if damaged.

  Damaged files are empty, or contain something other than finite numbers and commas.
  """
  try:
    numbers = np.array([float(part) for part in text.decode("ascii").split(",")])
  except ValueError:  # UnicodeDecodeError is one
    return None
  with np.errstate(over="ignore"):
    vector = numbers.astype(np.float32)
  return vector if np.isfinite(vector).all() else None
