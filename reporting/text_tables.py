"""What the terminal shows after an evaluation: text made from `metrics.json`, as `run` and `evaluate` print it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_LABELS = 40
_LONGEST = 40  # characters of a label


def align(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
  """Returns a table with columns as wide as they need, two spaces apart: the first `left` and the last flush left."""
  widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

  def line(row: Sequence[str]) -> str:
    last = len(row) - 1
    cells = [
      cell.ljust(width) if column < left or column == last else cell.rjust(width)
      for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()

  return "\n".join([line(header), *map(line, rows)])


def changes_table(metrics: Mapping[str, Any]) -> str:
  """Returns, of a night, one line per model: what it was compared with, and how many images changed."""
  header = ["", "accuracy", "compared with", "regressed", "fixed", "new", "gone", "edited", "p"]
  rows = []
  for name, of_model in (("model", metrics), ("candidate", metrics.get("candidate"))):
    if of_model:
      found = of_model["comparison"]
      counts = ["-" if found[count] is None else f"{found[count]:,}" for count in header[3:8]]
      p_value = "-" if found["p_value"] is None else f"{found['p_value']:.3g}"
      compared_with = "the model" if name == "candidate" else printable(found["baseline"] or "no baseline")
      rows.append([name, _percent(of_model["accuracy"]), compared_with, *counts, p_value])
  return align(header, rows)


def per_label_table(metrics: Mapping[str, Any], max_labels: int = MAX_LABELS) -> str:
  """Returns one line per label in the order of the label list; of more than `max_labels`, those with the lowest F1."""
  per_label = metrics["per_label"]
  shown = list(metrics["labels"])
  note = ""
  if len(shown) > max_labels:
    worst = sorted(shown, key=lambda label: (per_label[label]["f1"] is None, per_label[label]["f1"]))[:max_labels]
    note = f"\n(the {max_labels} of {len(shown):,} labels with the lowest F1; all are in per_label.csv)"
    shown = worst
  header = ["label", "support", "correct", "accuracy", "precision", "recall", "f1", "most confused with"]
  return align(header, [_label_cells(label, per_label[label]) for label in shown]) + note


def _label_cells(label: str, row: Mapping[str, Any]) -> list[str]:
  confused = row["most_confused_with"]
  return [
    shortened(printable(label), _LONGEST, "..."),
    f"{row['support']:,}",
    f"{row['correct']:,}",
    *(_percent(row[name]) for name in ("accuracy", "precision", "recall", "f1")),
    "-" if confused is None else f"{shortened(printable(confused), _LONGEST, '...')} ({row['most_confused_count']:,})",
  ]


def _percent(fraction: float | None) -> str:
  return "-" if fraction is None else f"{100 * fraction:.2f} %"


def printable(text: str) -> str:
  """Returns `text`, without what would steer the terminal: a label is a folder's name, and anyone can name a folder."""
  return text if text.isprintable() else ascii(text)[1:-1]


def shortened(text: str, longest: int, gap: str) -> str:
  """Returns `text`, with `gap` in place of its middle where it is longer than `longest` characters."""
  if len(text) <= longest:
    return text
  kept = longest - len(gap)
  return f"{text[: kept - kept // 2]}{gap}{text[len(text) - kept // 2 :]}"
