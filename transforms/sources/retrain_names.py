"""Labels and image names as in `retrain.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from beam_retrain.transforms.core.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Compared without case, unlike in `retrain.py` on Linux."""


def label_of_folder(name: str) -> str:
  """Returns the label of a folder: `a`..`z`, `0`..`9`, single spaces.

  As `create_image_lists` of TensorFlow Hub's `examples/image_retraining/retrain.py`.
  """
  return re.sub("[^a-z0-9]+", " ", name.lower())


def is_image(file_name: str) -> bool:
  """Returns whether `retrain.py` would read a file of this name."""
  return file_name.lower().endswith(IMAGE_SUFFIXES)


def check_labels_differ(names: Iterable[str]) -> None:
  """Checks that the folders of a split have different labels.

  Raises:
    InputError: two have the same; `retrain.py` silently read only the last one.
  """
  seen: dict[str, str] = {}
  for name in sorted(names):
    label = label_of_folder(name)
    if label in seen:
      raise InputError(
        f"the folders {seen[label]!r} and {name!r} both get the label {label!r}: rename one, or put their images into"
        " one folder."
      )
    seen[label] = name
