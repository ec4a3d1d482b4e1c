"""`corrections.csv`: what people say of labels, one line for each image.

| column     | what                                                                                     |
|------------|------------------------------------------------------------------------------------------|
| file_name  | the image's key, a safe cell as in `predictions.csv`                                     |
| sha256     | of the image's bytes, 64 hex digits: a correction holds for these, whatever their name   |
| label_was  | the image's label at the time                                                         |
| label      | its label now; empty with `drop` and `unsure`                                            |
| decision   | `keep`, `relabel`, `drop` (an image of no class) or `unsure`                             |
| note       | free text                                                                                |

The file is replaced whole by each change, under a lock beside it.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.csv_format import csv_text, escape_cell, unescape_cell
from beam_retrain.transforms.core.system import local_files, locks

KEEP, RELABEL, DROP, UNSURE = "keep", "relabel", "drop", "unsure"
DECISIONS = (KEEP, RELABEL, DROP, UNSURE)
COLUMNS = ["file_name", "sha256", "label_was", "label", "decision", "note"]
_SHA256 = re.compile("[0-9a-f]{64}")

ImageId = tuple[str, str]
"""Key and SHA-256 of an image."""


class Correction(NamedTuple):
  """A decision on one image's label.

  `label` is empty with `drop` and `unsure`.
  """

  label_was: str
  label: str
  decision: str
  note: str = ""


class ConflictError(Exception):
  """Somebody else has decided in the meantime."""


class Corrections:
  """The file, read and changed by any number of processes."""

  def __init__(self, path: str):
    self.path = path
    self._lock = os.path.join(os.path.dirname(os.path.abspath(path)), f".{os.path.basename(path)}.lock")

  def read(self) -> dict[ImageId, Correction]:
    """Returns the decisions in their order; none without a file.

    Raises:
      InputError: it is no `corrections.csv`, or a line is damaged.
    """
    try:
      text = local_files.read_bytes(self.path).decode()
    except FileNotFoundError:
      return {}
    except (OSError, UnicodeDecodeError) as error:
      raise InputError(f"{self.path} cannot be read ({error}): give another --corrections.") from error
    rows = csv.reader(io.StringIO(text, newline=""))
    if next(rows, None) != COLUMNS:
      raise InputError(f"{self.path} does not begin with {','.join(COLUMNS)}: give another --corrections.")
    read: dict[ImageId, Correction] = {}
    for cells in rows:
      if len(cells) != len(COLUMNS) or not _SHA256.fullmatch(cells[1]) or cells[4] not in DECISIONS:
        raise InputError(f"{self.path}: line {rows.line_num} is damaged: mend or remove it.")
      key, sha256, label_was, label, decision, note = map(unescape_cell, cells)
      read[key, sha256] = Correction(label_was, label, decision, note)
    return read

  def change(self, seen: Mapping[ImageId, Correction | None], changes: Mapping[ImageId, Correction | None]) -> None:
    """Writes decisions; None removes one.

    Raises:
      ConflictError: an image of `seen` has another decision by now.
    """
    with locks.hold(self._lock):
      decided = self.read()
      if any(decided.get(image) != decision for image, decision in seen.items()):
        raise ConflictError
      for image, decision in changes.items():
        decided.pop(image, None)
        if decision:
          decided[image] = decision
      rows = ([*map(escape_cell, (key, sha256, *decision))] for (key, sha256), decision in decided.items())
      local_files.write_text(self.path, csv_text([COLUMNS, *rows]))
