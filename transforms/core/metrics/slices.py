"""A model's accuracy on slices of the images."""

from __future__ import annotations

from collections.abc import Mapping

from beam_retrain.transforms.core.metrics.comparison import Comparison, Plan
from beam_retrain.transforms.core.metrics.figures import ColumnSlices, PooledSlices, SliceFigures
from beam_retrain.transforms.core.metrics.statistics import wilson_interval
from beam_retrain.transforms.core.records import slice_manifest


def extract_slices(comparison: Comparison, plan: Plan, min_slice_size: int) -> dict[str, dict[str, ColumnSlices]]:
  """Returns model -> column -> slices.

  Slices of fewer than `min_slice_size` images are pooled.
  """
  columns: dict[str, list[tuple[str, Mapping[str, tuple[int, int]]]]] = {column: [] for column in plan.columns}
  for (column, value), by_model in sorted(comparison.slices.items()):
    columns[column].append((value, by_model))
  return {
    model: {
      column: _column({value: by_model[model] for value, by_model in values if model in by_model}, min_slice_size)
      for column, values in columns.items()
    }
    for model in plan.models
  }


def _column(counts: dict[str, tuple[int, int]], min_slice_size: int) -> ColumnSlices:
  unlisted = counts.pop(slice_manifest.NOT_IN_MANIFEST, None)
  small = [(images, correct) for images, correct in counts.values() if images < min_slice_size]
  pooled = _figures(sum(images for images, _ in small), sum(correct for _, correct in small)) if small else None
  return ColumnSlices(
    {value: _figures(*count) for value, count in counts.items() if count[0] >= min_slice_size},
    PooledSlices(len(small), min_slice_size, pooled) if pooled else None,
    _figures(*unlisted) if unlisted else None,
  )


def _figures(images: int, correct: int) -> SliceFigures:
  return SliceFigures(images, correct, correct / images, wilson_interval(correct, images))
