"""CSV cells that a spreadsheet cannot take for a formula (OWASP, "CSV injection")."""

from __future__ import annotations

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def escape_cell(text: str) -> str:
  """Returns `text`, with a `'` before it where a spreadsheet would run it: file names and labels are not trusted."""
  return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
