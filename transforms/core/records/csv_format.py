"""CSV files: cells safe in spreadsheets, and reading users' tables.

Cells (OWASP, "CSV injection"): no spreadsheet takes one for a formula, and different texts give different cells.

- A `'` goes before a text that a spreadsheet would run, or that would look escaped already.
- A bare carriage return, which only some readers take for a line end, is written as `\\r`. To keep this reversible,
  backslashes right before an `r` or a bare carriage return are doubled.

Tables: UTF-8, with or without a byte order mark; the first line names the columns, in any order and case; blank lines
are skipped. They are read a line at a time.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from beam_retrain.transforms.core.errors import InputError, listed

_FORMULA = re.compile(r"[=+\-@\t\r]")
_AS_IF_QUOTED = re.compile(rf"'*{_FORMULA.pattern}")
_BARE_RETURN = re.compile(r"\r(?!\n)")
_MISLEADING = re.compile(rf"\\+(?=r|{_BARE_RETURN.pattern})")
_ESCAPED = re.compile(r"(\\+)r")


def escape_cell(text: str) -> str:
  """Returns `text` as a safe cell; different texts give different cells."""
  escaped = _MISLEADING.sub(lambda match: 2 * match[0], text) if "\\" in text else text
  escaped = _BARE_RETURN.sub(r"\\r", escaped)
  return f"'{escaped}" if _AS_IF_QUOTED.match(text) else escaped


def unescape_cell(cell: str) -> str:
  """Inverse of `escape_cell`."""
  # 2n backslashes and an r stand for n and an r; 2n + 1 for n and a bare carriage return.
  text = _ESCAPED.sub(lambda match: "\\" * (len(match[1]) // 2) + ("\r" if len(match[1]) % 2 else "r"), cell)
  return text[1:] if text.startswith("'") and _AS_IF_QUOTED.match(text) else text


def escape_once(text: str) -> str:
  """Escapes a cell unless it is escaped already."""
  return escape_cell(text) if _FORMULA.match(text) or _BARE_RETURN.search(text) else text


def csv_text(rows: Iterable[Iterable[object]], end: str = "\n") -> str:
  """Returns the lines of a CSV file."""
  text = io.StringIO()
  csv.writer(text, lineterminator=end).writerows(rows)
  return text.getvalue()


def csv_line(cells: Iterable[object], end: str = "\n") -> str:
  """Returns one line of a CSV file."""
  return csv_text([cells], end)


class TableKind(NamedTuple):
  """Required columns, name -> content, of a CSV file; parts of messages.

  `optional` are names of other columns with a meaning. `first_line` is what an empty file lacks, `other` and
  `without_rows` are remedies; without the latter, a table may have no rows. With `skips_spaces`, a cell may begin with
  spaces before its quote.
  """

  columns: Mapping[str, str]
  first_line: str
  other: str
  without_rows: str
  optional: Sequence[str] = ()
  skips_spaces: bool = False


class Row(Protocol):
  """A parsed row: its line number and its image's key."""

  @property
  def line(self) -> int: ...
  @property
  def key(self) -> str: ...


AnyRow = TypeVar("AnyRow", bound=Row)


def open_table(
  lines: Iterable[str], source: str, kind: TableKind
) -> tuple[list[str], Iterator[tuple[int, Sequence[str]]]]:
  """Returns the header and an iterator over (line number, cells).

  Reads no further than the header. `lines` come from a file opened with `newline=""`, which may be opened late. Raises
  InputError if the table is invalid, also while iterating.
  """
  records = _records(lines, source, kind)
  _, cells = next(records, (0, ()))
  if not cells:
    raise InputError(f"{source} is empty: its first line must be {kind.first_line}.")
  header = [cell.strip() for cell in cells]
  # `Label` is `label`, unless there is that too.
  known = {name for name in (*kind.columns, *kind.optional) if name not in header}
  header = [lower if (lower := name.lower()) in known else name for name in header]
  for name, holds in kind.columns.items():
    if name not in header:
      raise InputError(
        f"{source} has no column {name!r} (its columns: {listed(header, 5)}): give the column of {holds} this name,"
        " and separate columns with commas."
      )
  return header, _rows(records, len(header), source, kind)


def validate_once(header: Sequence[str], names: Iterable[str], source: str) -> None:
  """Raises InputError if a column appears twice."""
  for name in names:
    if header.count(name) > 1:
      raise InputError(f"{source} has more than one column {name!r}: rename or remove one in line 1.")


def by_key(rows: Iterable[AnyRow], source: str) -> dict[str, AnyRow]:
  """Returns key -> row in file order; raises InputError on repeated keys."""
  rows_by_key: dict[str, AnyRow] = {}
  for row in sorted(rows, key=lambda row: row.line):
    earlier = rows_by_key.setdefault(row.key, row)
    if earlier is not row:
      raise InputError(f"{source}: lines {earlier.line} and {row.line} both name {row.key!r}: remove one of them.")
  return rows_by_key


def _rows(
  records: Iterator[tuple[int, Sequence[str]]], columns: int, source: str, kind: TableKind
) -> Iterator[tuple[int, Sequence[str]]]:
  line = 0
  for line, cells in records:
    if len(cells) != columns:
      count = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'}"
      raise InputError(
        f"{source}: line {line} has {count}, but the header has {columns}: give every row one cell per column."
      )
    yield line, cells
  if not line and kind.without_rows:
    raise InputError(f"{source} has a header but no rows: {kind.without_rows}.")


def _records(lines: Iterable[str], source: str, kind: TableKind) -> Iterator[tuple[int, Sequence[str]]]:
  """Yields (line number, cells) of every line that is not blank."""
  lines = iter(lines)
  try:
    first = next(lines, "").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    if "\0" in first:  # UTF-16 without a mark, or no text at all
      raise _not_text(source, kind)
    reader = csv.reader(itertools.chain([first], lines), strict=True, skipinitialspace=kind.skips_spaces)
    for cells in reader:
      if cells:
        yield reader.line_num, cells
  except csv.Error as error:
    raise InputError(
      f"{source}: line {reader.line_num} is not CSV ({error}): fix it, or save the file again."
    ) from error
  except OSError as error:
    raise InputError(f"{source} cannot be read ({error.strerror or error}): {kind.other}.") from error
  except UnicodeDecodeError as error:
    raise _not_text(source, kind) from error


def _not_text(source: str, kind: TableKind) -> InputError:
  return InputError(f"{source} is not UTF-8 text: save it as CSV in UTF-8, or {kind.other}.")
