"""CSV cells that a spreadsheet cannot take for a formula (OWASP, "CSV injection"), and no two texts as the same cell.

- Before what a spreadsheet would run goes a `'`; so does one more before a text that looks as if that had been done.
- A bare carriage return is no line's end to those who write CSV, but it is to some who read it: it is spelled `\\r`. So
  that nothing else is, backslashes are doubled, but only those right before an `r` or a bare carriage return.
"""

from __future__ import annotations

import re

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
