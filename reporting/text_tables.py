"""Tables that the terminal shows after an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from beam_retrain.transforms.core.metrics.figures import CANDIDATE, ComparisonResult, LabelRow, Metrics, ModelMetrics
from beam_retrain.transforms.core.printing import printable

MAX_LABELS = 40
_LONGEST = 40  # characters of a label


def align(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
  """Returns a table; the first `left` and the last column are left-aligned."""
  widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

  def line(row: Sequence[str]) -> str:
    last = len(row) - 1
    cells = [
      cell.ljust(width) if column < left or column == last else cell.rjust(width)
      for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()

  return "\n".join([line(header), *map(line, rows)])


def changes_table(metrics: Metrics) -> str:
  """Returns a line per model: its baseline, and its changed images."""
  counted = ["regressed", "fixed", "new", "gone", "edited"]
  rows = []
  for name, model in metrics.models.items():
    result = model.comparison or ComparisonResult()
    counts = [getattr(result, kind) for kind in counted]
    rows.append(
      [
        name,
        _percent(model.accuracy),
        baseline_name(name, result),
        *("-" if count is None else f"{count:,}" for count in counts),
        "-" if result.p_value is None else f"{result.p_value:.3g}",
      ]
    )
  return align(["", "accuracy", "compared with", *counted, "p"], rows)


def baseline_name(name: str, comparison: ComparisonResult) -> str:
  """Returns the name of what a model is compared with."""
  return "the model" if name == CANDIDATE else printable(comparison.baseline or "no baseline")


def per_label_table(model: ModelMetrics, max_labels: int = MAX_LABELS) -> str:
  """Returns a line per label, or the labels with the lowest F1."""
  shown, note = lowest_f1(model.rows, max_labels), ""
  if len(shown) < len(model.rows):
    note = f"\n(the {max_labels} of {len(model.rows):,} labels with the lowest F1; all are in per_label.csv)"
  header = ["label", "support", "correct", "accuracy", "precision", "recall", "f1", "most confused with"]
  return align(header, list(map(_label_cells, shown))) + note


def lowest_f1(rows: Sequence[LabelRow], limit: int) -> list[LabelRow]:
  """Returns all rows, or the `limit` rows with the lowest F1."""
  if len(rows) <= limit:
    return list(rows)
  return sorted(rows, key=lambda row: (row.f1 is None, row.f1))[:limit]


def _label_cells(row: LabelRow) -> list[str]:
  confused = row.most_confused_with
  return [
    shortened(printable(row.label), _LONGEST, "..."),
    f"{row.support:,}",
    f"{row.correct:,}",
    *map(_percent, (row.accuracy, row.precision, row.recall, row.f1)),
    f"{shortened(printable(confused), _LONGEST, '...')} ({row.most_confused_count:,})" if confused else "-",
  ]


def _percent(fraction: float | None) -> str:
  return "-" if fraction is None else f"{100 * fraction:.2f} %"


def shortened(text: str, longest: int, gap: str) -> str:
  """Returns `text` with its middle replaced by `gap` if too long."""
  if len(text) <= longest:
    return text
  kept = longest - len(gap)
  return f"{text[: kept - kept // 2]}{gap}{text[len(text) - kept // 2 :]}"
