"""Selects the mistakes to show, and likely wrong labels.

Memory stays bounded, and the selection depends on the set of predictions, not on their order.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

from beam_retrain.transforms.core.metrics.figures import ShownImage
from beam_retrain.transforms.core.metrics.predictions import Row

SUSPICIOUS_PERCENT = 95.0
"""A mistake of at least this confidence may be a wrong label."""
MAX_SUSPICIOUS = 10_000
MAX_SHOWN = 600
MAX_SHOWN_SUSPICIOUS = 60
MAX_PER_CELL = 12
SUSPICIOUS_COLUMNS = ("file_name", "actual_digit", "predicted_digit", "confidence", "sha256")


class Mistakes:
  """Collects the mistakes of one model.

  Attributes:
    suspicious_count: mistakes with a confidence of at least `SUSPICIOUS_PERCENT`.
  """

  def __init__(self) -> None:
    # (actual, predicted) -> heap of its most confident mistakes, the least confident on top.
    self._cells: defaultdict[tuple[str, str], list[_Ranked]] = defaultdict(list)
    self._suspicious: list[_Ranked] = []
    self.suspicious_count = 0

  def add(self, row: Row) -> None:
    if row.right:
      return
    ranked = _Ranked(row)
    _keep(self._cells[row.actual, row.predicted], ranked, MAX_PER_CELL)
    if float(row.confidence) >= SUSPICIOUS_PERCENT:
      self.suspicious_count += 1
      _keep(self._suspicious, ranked, MAX_SUSPICIOUS)

  def shown(self, limit: int = MAX_SHOWN) -> list[Row]:
    """Returns up to `limit` mistakes: each pair's most confident, then others."""
    places = [
      (place, ranked) for heap in self._cells.values() for place, ranked in enumerate(sorted(heap, reverse=True))
    ]
    places.sort(key=lambda entry: (entry[0], _order(entry[1].row)))
    return [ranked.row for _, ranked in places[:limit]]

  def suspicious(self, limit: int = MAX_SUSPICIOUS) -> list[Row]:
    """Returns up to `limit` suspicious labels, the most confident first."""
    return [ranked.row for ranked in sorted(self._suspicious, reverse=True)[:limit]]


def shown_image(model: str, row: Row) -> ShownImage:
  return ShownImage(model, row.key, row.actual, row.predicted, float(row.confidence))


def _order(row: Row) -> tuple[float, str]:
  return -float(row.confidence), row.key


class _Ranked:
  """Orders rows by confidence, then by key, the lowest first."""

  __slots__ = ("_order", "row")

  def __init__(self, row: Row):
    self.row = row
    self._order = _order(row)

  def __lt__(self, other: _Ranked) -> bool:
    return self._order > other._order


def _keep(heap: list[_Ranked], ranked: _Ranked, limit: int) -> None:
  if len(heap) < limit:
    heapq.heappush(heap, ranked)
  elif heap[0] < ranked:
    heapq.heapreplace(heap, ranked)
