"""Selects the mistakes to show, and likely wrong labels.

Memory stays bounded, and the selection depends on the set of predictions, not on their order.
"""

from __future__ import annotations

from collections import defaultdict

from beam_retrain.transforms.core.metrics.figures import ShownImage
from beam_retrain.transforms.core.metrics.predictions import Row

SUSPICIOUS_PERCENT = 95.0
"""A mistake of at least this confidence may be a wrong label."""
MAX_SUSPICIOUS = 10_000
MAX_SHOWN = 600
MAX_SHOWN_SUSPICIOUS = 60
MAX_PER_CELL = 12


class Mistakes:
  """Collects the mistakes of one model.

  Attributes:
    suspicious_count: mistakes with a confidence of at least `SUSPICIOUS_PERCENT`.
  """

  def __init__(self) -> None:
    self._cells: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    self._suspicious: list[Row] = []
    self.suspicious_count = 0

  def add(self, row: Row) -> None:
    if row.right:
      return
    _keep(self._cells[row.actual, row.predicted], row, MAX_PER_CELL)
    if float(row.confidence) >= SUSPICIOUS_PERCENT:
      self.suspicious_count += 1
      _keep(self._suspicious, row, MAX_SUSPICIOUS)

  def shown(self, limit: int = MAX_SHOWN) -> list[Row]:
    """Returns up to `limit` mistakes: each pair's most confident, then others."""
    places = [entry for rows in self._cells.values() for entry in enumerate(sorted(rows, key=_order)[:MAX_PER_CELL])]
    places.sort(key=lambda entry: (entry[0], _order(entry[1])))
    return [row for _, row in places[:limit]]

  def suspicious(self, limit: int = MAX_SUSPICIOUS) -> list[Row]:
    """Returns up to `limit` suspicious labels, the most confident first."""
    return sorted(self._suspicious, key=_order)[: min(limit, MAX_SUSPICIOUS)]


def shown_image(model: str, row: Row) -> ShownImage:
  return ShownImage(model, row.key, row.actual, row.predicted, float(row.confidence))


def _order(row: Row) -> tuple[float, str]:
  return -float(row.confidence), row.key


def _keep(rows: list[Row], row: Row, limit: int) -> None:
  """Adds a row; keeps the `limit` most confident ones and some more."""
  rows.append(row)
  if len(rows) == 2 * limit:
    rows.sort(key=_order)
    del rows[limit:]
