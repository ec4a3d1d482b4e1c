"""The manifest: what is known of the images besides their labels (writer, device, ...), a CSV. No Beam.

The column `file_name` holds the images' keys, as `predictions.csv` spells them, or unescaped where that is no other
key's spelling there. Every other column cuts the images into slices, one for each of its values. UTF-8, with or
without a byte order mark; the first line names the columns, in any order; blank lines do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.csv_format import TableKind, escape_once, open_table, validate_once

FILE_NAME = "file_name"
NOT_IN_MANIFEST = ""
"""The value, in every column, of an image that the manifest does not have."""
EMPTY_CELL = "(empty)"
"""The value of an image whose cell is empty."""

_KIND = TableKind(
  columns={FILE_NAME: "the images' keys"},
  first_line=f"{FILE_NAME!r} and the columns to slice by",
  other="give another --manifest, or leave it out",
  without_rows="add a row per image, or leave --manifest out",
)


class ManifestRow(NamedTuple):
  """One image's row.

  Attributes:
    line: where it ends in the file, 1 for the first.
    key: the image's key, escaped as CSV cells of ours are.
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
  header, _ = _open(lines, source)
  return tuple(name for name in header if name != FILE_NAME)


def read_manifest(lines: Iterable[str], source: str) -> Iterator[ManifestRow]:
  """Reads a whole manifest, one line at a time. That no image comes twice is for `by_key` to see.

  Args: as of `read_columns`.

  Raises:
    InputError: as `read_columns`; no row follows; a row has not as many cells as the header; the file is no CSV, or not
      UTF-8.
  """
  header, rows = _open(lines, source)
  at = header.index(FILE_NAME)
  for line, cells in rows:
    values = tuple(cell or EMPTY_CELL for cell in (*cells[:at], *cells[at + 1 :]))
    yield ManifestRow(line, escape_once(cells[at]), values)


def _open(lines: Iterable[str], source: str) -> tuple[list[str], Iterator[tuple[int, Sequence[str]]]]:
  header, rows = open_table(lines, source, _KIND)
  if "" in header:
    raise InputError(f"{source}: column {header.index('') + 1} has no name: name it in line 1, or remove it.")
  validate_once(header, header, source)
  if len(header) == 1:
    raise InputError(f"{source} has no column besides {FILE_NAME!r}: add one to slice by, or leave --manifest out.")
  return header, rows
