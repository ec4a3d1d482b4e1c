"""Labels and images by their names, as `retrain.py` took them. No Beam."""

from __future__ import annotations

import re
from collections.abc import Iterable

from beam_retrain.transforms.core.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""In any case: `retrain.py` did not see `.PNG`, on Linux."""


def label_of_folder(name: str) -> str:
  """Returns the label of a folder, of `a`..`z`, `0`..`9` and single spaces (`create_image_lists` of TensorFlow Hub's
  `examples/image_retraining/retrain.py`)."""
  return re.sub("[^a-z0-9]+", " ", name.lower())


def is_image(file_name: str) -> bool:
  """Says whether `retrain.py` would have looked at a file of this name."""
  return file_name.lower().endswith(IMAGE_SUFFIXES)


def check_labels_differ(names: Iterable[str]) -> None:
  """Checks that no two folders, of a data set or of one of its splits, get one label.

  Raises:
    InputError: two do; names both. (In `retrain.py` the last one silently replaced the others.)
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
