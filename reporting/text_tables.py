"""Tables that the terminal shows after an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
  """Returns a line per comparison, and what other images changed."""
  counted = ["regressed", "fixed", "new", "gone", "edited"]
  rows, sentences, are_mixed = [], [], False
  for name, model in metrics.models.items():
    for against, result in comparisons(name, model):
      counts = [getattr(result, kind) for kind in counted]
      cells = ["-" if count is None else f"{count:,}" for count in counts]
      if result.is_mixed:
        are_mixed = True
        cells[:2] = [f"{result.unseen_regressed or 0:,} of {cells[0]}", f"{result.unseen_fixed or 0:,} of {cells[1]}"]
      rows.append(
        [
          name,
          _percent(model.main.accuracy),
          against,
          *cells,
          "-" if result.p_value is None else f"{result.p_value:.3g}",
        ]
      )
      if sentence := describe_images(result):
        sentences.append(f"\n{name} against {against}: {sentence}")
  note = "\n(of the regressed and fixed images, the first number were not trained on; p is of these alone)"
  return align(["", "accuracy", "compared with", *counted, "p"], rows) + note * are_mixed + "".join(sentences)


def comparisons(name: str, model: ModelMetrics) -> Iterator[tuple[str, ComparisonResult]]:
  """Yields (name of what a model is compared with, result)."""
  if result := model.comparison:
    yield "the model" if name == CANDIDATE else printable(result.baseline or "no baseline"), result
  if result := model.reference:
    yield f"the reference {printable(result.baseline or '')}", result


def describe_images(result: ComparisonResult) -> str:
  """Returns what new, gone and changed images did to the accuracy.

  Empty if there are none: then the accuracy can only have changed on the same images.
  """
  new, gone, changed = (count or 0 for count in (result.new, result.gone, result.changed))
  if result.gone_correct is None or not new + gone + changed:
    return ""
  paired, now, before = (count or 0 for count in (result.paired, result.correct, result.baseline_correct))
  new_right, changed_right, was_right = (
    count or 0 for count in (result.new_correct, result.changed_correct, result.changed_baseline_correct)
  )
  kinds = []
  for kind, images, was, right in (
    ("unchanged", paired - changed, before - was_right, now - changed_right),
    ("changed", changed, was_right, changed_right),
  ):
    if images:
      rates = f"from {_percent(was / images)} to {_percent(right / images)}"
      kinds.append(f"{kind} images {rates} ({was:,} and {right:,} of {images:,} right)")
  if new:
    kinds.append(f"new images {_percent(new_right / new)} ({new_right:,} of {new:,} right)")
  if gone:
    kinds.append(
      f"gone images {_percent(result.gone_correct / gone)} before ({result.gone_correct:,} of {gone:,} right)"
    )
  was_all = (before + result.gone_correct) / (paired + gone) if paired + gone else None
  now_all = (now + new_right) / (paired + new) if paired + new else None
  return f"the accuracy on all images went from {_percent(was_all)} to {_percent(now_all)}: {', '.join(kinds)}."


def per_label_table(model: ModelMetrics, max_labels: int = MAX_LABELS) -> str:
  """Returns a line per label, or the labels with the lowest F1."""
  shown, note = lowest_f1(model.rows, max_labels), ""
  if len(shown) < len(model.rows):
    note = f"\n(the {max_labels} of {len(model.rows):,} labels with the lowest F1; all are in per_label.csv)"
  header = ["label", "support", "correct", "accuracy", "precision", "recall", "f1", "most confused with"]
  table = [header, *map(_label_cells, shown)]
  if model.is_mixed:
    unseen = [model.main.per_label[row.label] for row in shown]
    columns = [("not trained on", "accuracy"), *((f"{row.total:,}", _percent(row.accuracy)) for row in unseen)]
    table = [[*cells[:-1], *pair, cells[-1]] for cells, pair in zip(table, columns, strict=True)]
  return align(table[0], table[1:]) + note


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
