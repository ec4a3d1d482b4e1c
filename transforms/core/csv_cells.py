"""CSV cells that a spreadsheet cannot take for a formula (OWASP, "CSV injection")."""

from __future__ import annotations

import re

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def escape_cell(text: str) -> str:
  """Returns `text`, with a `'` before it where a spreadsheet would run it: file names and labels are not trusted."""
  # A bare carriage return is no line's end to those who write CSV, but it is to some who read it.
  spelled = re.sub(r"\r(?!\n)", r"\\r", text) if "\r" in text else text
  return f"'{spelled}" if text.startswith(_FORMULA_STARTS) else spelled
