"""How `metrics.json` is laid out: for people to read, and no longer than it has to be."""

from __future__ import annotations

import json
from typing import Any


def metrics_text(value: Any, indent: str = "") -> str:
  """Returns JSON text with an entry per line, but each list of numbers in one line.

  A confusion matrix has a row of numbers per line: with one number per line, 1,000 labels would make 9 MB.

  Args:
    value: JSON values; the keys of its dicts are str.
    indent: of the line that the value begins in.
  """
  inner = indent + "  "
  if isinstance(value, dict) and value:
    entries = [f"{json.dumps(key)}: {metrics_text(entry, inner)}" for key, entry in value.items()]
    opening, closing = "{}"
  elif isinstance(value, list) and any(isinstance(entry, (dict, list, str)) for entry in value):
    entries = [metrics_text(entry, inner) for entry in value]
    opening, closing = "[]"
  else:
    return json.dumps(value)
  return opening + ",".join(f"\n{inner}{entry}" for entry in entries) + f"\n{indent}{closing}"
