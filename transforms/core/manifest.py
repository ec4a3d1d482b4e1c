"""The manifest: what is known of the pictures besides their labels (writer, device, ...), a CSV. No Beam.

The column `file_name` holds the pictures' keys, as `predictions.csv` spells them, or unescaped where that is no other
key's spelling there. Every other column cuts the pictures into slices, one for each of its values. UTF-8, with or
without a byte order mark; the first line names the columns, in any order; blank lines do not count.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from transforms.core.csv_cells import escape_once
from transforms.core.errors import InputError

FILE_NAME = "file_name"
NOT_IN_MANIFEST = ""
"""The value, in every column, of a picture that the manifest does not have."""
EMPTY_CELL = "(empty)"
"""The value of a picture whose cell is empty."""


class ManifestRow(NamedTuple):
  """One picture's row.

  Attributes:
    line: where it ends in the file, 1 for the first.
    key: the picture's key, escaped as CSV cells of ours are.
    values: one per column of `read_columns`.
  """

  line: int
  key: str
  values: tuple[str, ...]


def read_columns(lines: Iterable[str], source: str) -> tuple[str, ...]:
  """Returns the columns to slice by, in the file's order; reads no further than the header.

  Args:
    lines: the file's text, opened with `newline=""`, maybe not before the first is asked for.
    source: its path, for the errors.

  Raises:
    InputError: the file cannot be read; the header has no `file_name`, nothing else, or a column without a name or
      twice.
  """
  return _slice_columns(_header(_records(lines, source), source))


def read_manifest(lines: Iterable[str], source: str) -> Iterator[ManifestRow]:
  """Reads a whole manifest, one line at a time. That no picture comes twice is for `by_key` to see.

  Args: as of `read_columns`.

  Raises:
    InputError: as `read_columns`; no row follows; a row has not as many cells as the header; the file is no CSV, or not
      UTF-8.
  """
  records = _records(lines, source)
  header = _header(records, source)
  at = header.index(FILE_NAME)
  row = None
  for line, cells in records:
    if len(cells) != len(header):
      raise InputError(
        f"{source}: line {line} has {len(cells)} {'cell' if len(cells) == 1 else 'cells'}, but the header names"
        f" {len(header)}: give every row one cell per column."
      )
    values = tuple(cell or EMPTY_CELL for cell in (*cells[:at], *cells[at + 1 :]))
    row = ManifestRow(line, escape_once(cells[at]), values)
    yield row
  if row is None:
    raise InputError(f"{source} has a header but no rows: add a row per picture, or leave --manifest out.")


def by_key(rows: Iterable[ManifestRow], source: str) -> dict[str, ManifestRow]:
  """Returns key -> row.

  Raises:
    InputError: two rows are of the same picture.
  """
  found: dict[str, ManifestRow] = {}
  for row in sorted(rows):
    earlier = found.setdefault(row.key, row)
    if earlier is not row:
      raise InputError(f"{source}: lines {earlier.line} and {row.line} are both of {row.key!r}: remove one of the two.")
  return found


def _records(lines: Iterable[str], source: str) -> Iterator[tuple[int, Sequence[str]]]:
  """Yields (line number, cells) of every line that is not blank."""
  lines = iter(lines)
  try:
    first = next(lines, "").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    reader = csv.reader(itertools.chain([first], lines), strict=True)
    for cells in reader:
      if cells:
        yield reader.line_num, cells
  except csv.Error as error:
    raise InputError(
      f"{source}: line {reader.line_num} is not CSV ({error}): mend it, or save the file anew."
    ) from error
  except OSError as error:
    raise InputError(
      f"{source} cannot be read ({error.strerror or error}): give another --manifest, or leave it out."
    ) from error
  except UnicodeDecodeError as error:
    raise InputError(f"{source} is not UTF-8 text: save it as CSV in UTF-8.") from error


def _header(records: Iterator[tuple[int, Sequence[str]]], source: str) -> list[str]:
  _, cells = next(records, (0, ()))
  if not cells:
    raise InputError(f"{source} is empty: its first line has to be {FILE_NAME!r} and the columns to slice by.")
  header = [cell.strip() for cell in cells]
  if FILE_NAME not in header:
    shown = ", ".join(map(repr, header[:5])) + (", ..." if len(header) > 5 else "")
    raise InputError(
      f"{source} has no column {FILE_NAME!r} (it has {shown}): name the column of the pictures' keys so, and put commas"
      " between the columns."
    )
  if "" in header:
    raise InputError(f"{source}: column {header.index('') + 1} has no name: name it in line 1, or remove it.")
  twice = [name for name, count in Counter(header).items() if count > 1]
  if twice:
    raise InputError(f"{source} has more than one column {twice[0]!r}: rename one in line 1, or remove it.")
  if len(header) == 1:
    raise InputError(f"{source} has no column besides {FILE_NAME!r}: add one to slice by, or leave --manifest out.")
  return header


def _slice_columns(header: Sequence[str]) -> tuple[str, ...]:
  return tuple(name for name in header if name != FILE_NAME)
