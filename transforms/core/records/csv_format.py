"""CSV: lines and cells of ours, safe in a spreadsheet, and tables that people bring.

Cells (OWASP, "CSV injection"): no spreadsheet takes one for a formula, and no two texts are the same cell.

- A `'` goes before what a spreadsheet would run, and one more before a text that looks as if that had been done.
- A bare carriage return ends a line for some readers and not for others: it is spelled `\\r`. So that nothing else is,
  backslashes right before an `r` or a bare carriage return are doubled.

Tables: UTF-8, with or without a byte order mark; the first line names the columns, in any order; blank lines do not
count. They are read a line at a time; an error names the line and the remedy.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from beam_retrain.transforms.core.errors import InputError

_FORMULA = re.compile(r"[=+\-@\t\r]")
_AS_IF_QUOTED = re.compile(rf"'*{_FORMULA.pattern}")
_BARE_RETURN = re.compile(r"\r(?!\n)")
_MISLEADING = re.compile(rf"\\+(?=r|{_BARE_RETURN.pattern})")
_SPELLED = re.compile(r"(\\+)r")


def escape_cell(text: str) -> str:
  """Returns `text` as a cell: file names and labels are not trusted. Different texts are different cells."""
  spelled = _MISLEADING.sub(lambda found: 2 * found[0], text) if "\\" in text else text
  spelled = _BARE_RETURN.sub(r"\\r", spelled)
  return f"'{spelled}" if _AS_IF_QUOTED.match(text) else spelled


def unescape_cell(cell: str) -> str:
  """Returns the text that `escape_cell` made a cell of."""
  # Of 2n backslashes before an r, n were there; of 2n + 1, n, and what followed was a bare carriage return.
  text = _SPELLED.sub(lambda found: "\\" * (len(found[1]) // 2) + ("\r" if len(found[1]) % 2 else "r"), cell)
  return text[1:] if text.startswith("'") and _AS_IF_QUOTED.match(text) else text


def escape_once(text: str) -> str:
  """Returns a cell for a text that people have copied from a cell of ours, or written as it is.

  What could be a cell of ours is taken for one.
  """
  return escape_cell(text) if _FORMULA.match(text) or _BARE_RETURN.search(text) else text


def csv_text(rows: Iterable[Iterable[object]], end: str = "\n") -> str:
  """Returns the lines of a CSV, each with its `end`."""
  text = io.StringIO()
  csv.writer(text, lineterminator=end).writerows(rows)
  return text.getvalue()


def csv_line(cells: Iterable[object], end: str = "\n") -> str:
  """Returns one line of a CSV, with its `end`."""
  return csv_text([cells], end)


class TableKind(NamedTuple):
  """What a kind of CSV has to have, and what is said of one that has not.

  Attributes:
    columns: those that must be there -> what they hold.
    first_line: what an empty file lacks.
    other: what to do about a file that cannot be read.
    without_rows: what to do about one that has a header alone.
  """

  columns: Mapping[str, str]
  first_line: str
  other: str
  without_rows: str


class Row(Protocol):
  """A line of such a file: `line` is its number, `key` the image that it is about."""

  @property
  def line(self) -> int: ...

  @property
  def key(self) -> str: ...


AnyRow = TypeVar("AnyRow", bound=Row)


def open_table(
  lines: Iterable[str], source: str, kind: TableKind
) -> tuple[list[str], Iterator[tuple[int, Sequence[str]]]]:
  """Returns the header, and an iterator over (line number, one cell per column); reads no further than the header.

  Args:
    lines: the file's text, opened with `newline=""`, maybe not before the first is asked for.
    source: its path, for the errors.
    kind: which table it is to be.

  Raises:
    InputError: the file cannot be read, is no CSV, or not UTF-8; a column is missing; or, from the iterator, a row has
      not as many cells as the header, or there is none.
  """
  records = _records(lines, source, kind.other)
  _, cells = next(records, (0, ()))
  if not cells:
    raise InputError(f"{source} is empty: its first line has to be {kind.first_line}.")
  header = [cell.strip() for cell in cells]
  for name, holds in kind.columns.items():
    if name not in header:
      shown = ", ".join(map(repr, header[:5])) + (", ..." if len(header) > 5 else "")
      raise InputError(
        f"{source} has no column {name!r} (it has {shown}): name the column of {holds} so, and put commas between the"
        " columns."
      )
  return header, _rows(records, len(header), source, kind)


def validate_once(header: Sequence[str], names: Iterable[str], source: str) -> None:
  """Checks that columns are there once.

  Raises:
    InputError: one comes twice.
  """
  for name in names:
    if header.count(name) > 1:
      raise InputError(f"{source} has more than one column {name!r}: rename one in line 1, or remove it.")


def by_key(rows: Iterable[AnyRow], source: str) -> dict[str, AnyRow]:
  """Returns key -> row, in the order of the file.

  Raises:
    InputError: two rows are of the same image.
  """
  found: dict[str, AnyRow] = {}
  for row in sorted(rows, key=lambda row: row.line):
    earlier = found.setdefault(row.key, row)
    if earlier is not row:
      raise InputError(f"{source}: lines {earlier.line} and {row.line} are both of {row.key!r}: remove one of the two.")
  return found


def _rows(
  records: Iterator[tuple[int, Sequence[str]]], columns: int, source: str, kind: TableKind
) -> Iterator[tuple[int, Sequence[str]]]:
  line = 0
  for line, cells in records:
    if len(cells) != columns:
      raise InputError(
        f"{source}: line {line} has {len(cells)} {'cell' if len(cells) == 1 else 'cells'}, but the header names"
        f" {columns}: give every row one cell per column."
      )
    yield line, cells
  if not line:
    raise InputError(f"{source} has a header but no rows: {kind.without_rows}.")


def _records(lines: Iterable[str], source: str, other: str) -> Iterator[tuple[int, Sequence[str]]]:
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
    raise InputError(f"{source} cannot be read ({error.strerror or error}): {other}.") from error
  except UnicodeDecodeError as error:
    raise InputError(f"{source} is not UTF-8 text: save it as CSV in UTF-8, or {other}.") from error
