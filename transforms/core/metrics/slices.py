"""A model's accuracy on the slices of the manifest: figures from what `comparison` has counted. No Beam."""

from __future__ import annotations

from typing import Any

from beam_retrain.transforms.core.metrics.comparison import Comparison, Plan
from beam_retrain.transforms.core.metrics.intervals import wilson_interval
from beam_retrain.transforms.core.records import slice_manifest


def extract_slices(comparison: Comparison, plan: Plan, min_slice_size: int) -> dict[str, dict[str, dict[str, Any]]]:
  """Returns model -> column -> value -> `{images, correct, accuracy, interval_95}`, JSON values; rates are 0..1.

  Only the slices of `min_slice_size` images and more, in order of their values.
  """
  return {
    model: {
      column: {value: _rate(*counts) for value, counts in values.items() if counts[0] >= min_slice_size}
      for column, values in _values_of(comparison, plan, model).items()
    }
    for model in plan.models
  }


def extract_slices_beside(
  comparison: Comparison, plan: Plan, min_slice_size: int
) -> dict[str, dict[str, dict[str, dict[str, Any] | None]]]:
  """Returns what `extract_slices` leaves out, apart from it, since a value of a manifest may be any text.

  It is model -> column -> `{small, unlisted}`, each figures as of a slice, or None where there is none. `small` is all
  slices of fewer than `min_slice_size` images together and says also how many these are (`slices`) and what is small
  (`fewer_than`); `unlisted` is the images that have no row in the manifest.
  """
  beside: dict[str, dict[str, dict[str, dict[str, Any] | None]]] = {}
  for model in plan.models:
    beside[model] = {}
    for column, values in _values_of(comparison, plan, model).items():
      small = [counts for counts in values.values() if counts[0] < min_slice_size]
      unlisted = comparison.slices.get((column, slice_manifest.NOT_IN_MANIFEST), {}).get(model)
      beside[model][column] = {
        "small": {
          "slices": len(small),
          "fewer_than": min_slice_size,
          **_rate(sum(images for images, _ in small), sum(correct for _, correct in small)),
        }
        if small
        else None,
        "unlisted": None if unlisted is None else _rate(*unlisted),
      }
  return beside


def _values_of(comparison: Comparison, plan: Plan, model: str) -> dict[str, dict[str, tuple[int, int]]]:
  """Returns column -> value -> (images, correct) of the images that the manifest has, in order of the values."""
  columns: dict[str, dict[str, tuple[int, int]]] = {column: {} for column in plan.columns}
  for (column, value), of_models in sorted(comparison.slices.items()):
    if value != slice_manifest.NOT_IN_MANIFEST and model in of_models:
      columns[column][value] = of_models[model]
  return columns


def _rate(images: int, correct: int) -> dict[str, Any]:
  interval = list(wilson_interval(correct, images))
  return {"pictures": images, "correct": correct, "accuracy": correct / images, "interval_95": interval}
