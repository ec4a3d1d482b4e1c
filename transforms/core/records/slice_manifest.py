"""Slice manifests: CSV files with metadata of the images (writer, device, ...).

The column `file_name` holds the images' keys, as `predictions.csv` spells them, or unescaped if that is unambiguous.
Every other column divides the images into slices, one per value. The format is that of `csv_format`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.csv_format import TableKind, escape_once, open_table, validate_once

FILE_NAME = "file_name"
NOT_IN_MANIFEST = ""
"""Value, in every column, of an image that is not in the manifest."""
EMPTY_CELL = "(empty)"
"""Value of an empty cell."""

_KIND = TableKind(
  columns={FILE_NAME: "the images' keys"},
  first_line=f"{FILE_NAME!r} and the columns to slice by",
  other="give another --manifest, or leave it out",
  without_rows="add a row per image, or leave --manifest out",
)


class ManifestRow(NamedTuple):
  """One image's row; `key` is escaped as in our CSV files.

  `line` is its last line in the file, 1 for the first; `values` has one per column of `read_columns`.
  """

  line: int
  key: str
  values: tuple[str, ...]


def read_columns(lines: Iterable[str], source: str) -> tuple[str, ...]:
  """Returns the columns to slice by; reads only the header."""
  header, _ = _open(lines, source)
  return tuple(name for name in header if name != FILE_NAME)


def read_manifest(lines: Iterable[str], source: str) -> Iterator[ManifestRow]:
  """Yields the rows of a manifest, whose keys may repeat."""
  header, rows = _open(lines, source)
  at = header.index(FILE_NAME)
  for line, cells in rows:
    values = tuple(cell or EMPTY_CELL for cell in (*cells[:at], *cells[at + 1 :]))
    yield ManifestRow(line, escape_once(cells[at]), values)


def _open(lines: Iterable[str], source: str) -> tuple[list[str], Iterator[tuple[int, Sequence[str]]]]:
  header, rows = open_table(lines, source, _KIND)
  if "" in header:
    raise InputError(f"{source}: column {header.index('') + 1} has no name: add one in line 1, or remove the column.")
  validate_once(header, header, source)
  if len(header) == 1:
    raise InputError(f"{source} has no column besides {FILE_NAME!r}: add one to slice by, or leave --manifest out.")
  return header, rows
