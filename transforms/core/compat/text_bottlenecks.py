"""The text bottlenecks of `retrain.py`'s `--bottleneck_dir`: their names, and the numbers in them.

One file per image, `<class folder>/<image>_<module>.txt` (the earliest versions: `<image>.txt`): the vector as
decimal numbers with commas between them, nothing else. `<module>` is the handle of the TF Hub module, made fit for a
file name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from beam_retrain.transforms.core.errors import InputError

NO_MODULE = ""
"""The module of files that name none."""

_NAME = re.compile(r".*\.(?:jpe?g|png)(?:_(?P<module>.+))?\.txt", re.IGNORECASE | re.DOTALL)
_VERSION = re.compile(r"~\d+$")


def module_name(handle: str) -> str:
  """Returns a module's handle as it stands in file names, for example `https~tfhub.dev~google~x~1`."""
  return re.sub(r"://|[/:\\]", "~", handle)


def module_of_file(name: str) -> str | None:
  """Returns the module that a text bottleneck's file name has, `NO_MODULE` where it has none; None: it is no such file.

  Images are known by their extension, as `retrain.py` took no others.
  """
  match = _NAME.fullmatch(name)
  return (match["module"] or NO_MODULE) if match else None


def text_name(image: str, module: str) -> str:
  """Returns the name of a image's text bottleneck; `image` may have a path before it."""
  return f"{image}_{module}.txt" if module else f"{image}.txt"


def choose_module(found: Collection[str], handles: Sequence[str], folder: str) -> str:
  """Returns which module's files are of today's trunk.

  Args:
    found: the modules that a folder has files of, at least one.
    handles: names of today's trunk, the one that the user gave first.
    folder: the folder, for the message.

  Returns:
    The one that is named like the trunk; or like another version of the same TF Hub module, if there is one such only;
    or the only one there is, for a trunk may have been moved.

  Raises:
    InputError: several are there, and none is named like the trunk.
  """
  names = [module_name(handle) for handle in handles]
  if exact := [name for name in names if name in found]:
    return exact[0]
  if len(found) == 1:
    return next(iter(found))
  if len(versions := [module for module in found if is_module_of(module, handles)]) == 1:
    return versions[0]
  listed = ", ".join(repr(module) if module else "files that name none" for module in sorted(versions or found))
  raise InputError(
    f"{folder} has text bottlenecks of several modules ({listed}), and none is named like the trunk {handles[0]!r}:"
    " move those of other trunks elsewhere."
  )


def is_module_of(module: str, handles: Sequence[str]) -> bool:
  """Says whether a module is named like the trunk, maybe of another version."""
  plain = _VERSION.sub("", module)
  return any(plain == _VERSION.sub("", module_name(handle)) for handle in handles)


def parse_vector(text: bytes) -> np.ndarray | None:
  """Returns the numbers of a text bottleneck, float32 [n], as `retrain.py` read them; None where it is damaged.

  Damaged is what is empty, has something else than numbers between its commas, or a number that is not finite.
  """
  try:
    numbers = np.array([float(part) for part in text.decode("ascii").split(",")])
  except ValueError:  # UnicodeDecodeError is one
    return None
  with np.errstate(over="ignore"):
    vector = numbers.astype(np.float32)
  return vector if np.isfinite(vector).all() else None
