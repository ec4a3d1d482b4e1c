"""`corrections.csv`, read and changed by any number of servers.

The file is replaced whole by each change, under a lock beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from beam_retrain.transforms.core.corrections import Correction, ImageId, corrections_csv, read_rows
from beam_retrain.transforms.core.system import local_files, locks
from beam_retrain.transforms.io import files


class ConflictError(Exception):
  """Somebody else has decided in the meantime."""


class Corrections:
  """The file, by its path."""

  def __init__(self, path: str):
    self.path = path
    self._lock = os.path.join(os.path.dirname(os.path.abspath(path)), f".{os.path.basename(path)}.lock")

  def read(self) -> dict[ImageId, Correction]:
    """Returns the decisions in their order; none without a file.

    Raises:
      InputError: it is no `corrections.csv`, or a line is damaged.
    """
    if not os.path.lexists(self.path):
      return {}
    return {image: correction for _, image, correction in read_rows(files.read_lines(self.path), self.path)}

  def change(self, seen: Mapping[ImageId, Correction | None], changes: Mapping[ImageId, Correction | None]) -> None:
    """Writes decisions; None removes one.

    Raises ConflictError if an image of `seen` has another decision by now.
    """
    with locks.hold(self._lock):
      decided = self.read()
      if any(decided.get(image) != decision for image, decision in seen.items()):
        raise ConflictError
      for image, decision in changes.items():
        decided.pop(image, None)
        if decision:
          decided[image] = decision
      local_files.write_text(self.path, corrections_csv(decided))
