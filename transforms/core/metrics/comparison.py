"""Compares two nights image by image.

A *bucket* holds any set of keys with everything known of each. `compare` counts one bucket, `merge` adds up the
results in any order, and `extract` and `extract_slices` turn the sum into figures. Each night's prediction is judged
by that night's label. The first model is compared with its baseline, every other model with the first, and all with
the reference.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import (
  BETTER,
  NO_BASELINE,
  NO_DIFFERENCE,
  WORSE,
  ColumnSlices,
  ComparisonResult,
  Interval,
  PooledSlices,
  SliceFigures,
)
from beam_retrain.transforms.core.metrics.predictions import Row
from beam_retrain.transforms.core.metrics.statistics import mcnemar_p_value, wilson_interval
from beam_retrain.transforms.core.records import slice_manifest as manifest
from beam_retrain.transforms.core.records.csv_format import by_key, escape_cell
from beam_retrain.transforms.core.records.slice_manifest import ManifestRow

BASELINE = "baseline"
REFERENCE = "reference"
"""The comparisons of a model."""

SIGNIFICANT = 0.05
MAX_SLICES = 100_000
"""Distinct values of one column, counted in memory. A column with more is numeric rather than categorical."""

_COUNTED = [field.name for field in dataclasses.fields(ComparisonResult) if field.type == "int | None"]


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is compared: the first model with the baseline, others with it.

  `columns`: of the manifest, to slice by; `reference`: what all models are compared with besides.
  """

  models: tuple[str, ...]
  baseline: str | None = None
  manifest: str | None = None
  columns: tuple[str, ...] = ()
  reference: str | None = None

  def against(self, model: str, comparison: str = BASELINE) -> str | None:
    """Returns the name of what a model is compared with."""
    if comparison == REFERENCE:
      return self.reference
    return self.baseline if model == self.models[0] else self.models[0]


class Bucket(NamedTuple):
  """Everything known of some keys; `unscored`: tonight's quarantined ones."""

  tonight: Mapping[str, Sequence[Row]]
  baseline: Sequence[Row] = ()
  manifest: Sequence[ManifestRow] = ()
  unscored: Collection[str] = ()
  reference: Sequence[Row] = ()


class Change(NamedTuple):
  """A line of `regressed.csv` or `fixed.csv`.

  `actual_digit` and `sha256` are tonight's; `edited`: whether the image's bytes have changed; `baseline`: a night, or
  the model compared with.
  """

  file_name: str
  actual_digit: str
  baseline_digit: str
  baseline_confidence: str
  predicted_digit: str
  confidence: str
  edited: str
  model: str
  baseline: str
  sha256: str


class New(NamedTuple):
  """A line of `new.csv`: an image missing from the baseline."""

  file_name: str
  actual_digit: str
  predicted_digit: str
  confidence: str
  prediction_accuracy: str
  sha256: str


class Gone(NamedTuple):
  """A line of `gone.csv`: a baseline image without a prediction tonight."""

  file_name: str
  actual_digit: str
  baseline_digit: str
  baseline_confidence: str
  sha256: str


class Changes(NamedTuple):
  """The changes since the baseline, each list sorted as its file.

  `new` and `gone` come from the first model alone: all models score the same images.
  """

  regressed: list[Change]
  fixed: list[Change]
  new: list[New]
  gone: list[Gone]


CHANGE_TYPES: Mapping[str, type[Change] | type[New] | type[Gone]] = {
  "regressed": Change,
  "fixed": Change,
  "new": New,
  "gone": Gone,
}


def order(change: Change | New | Gone) -> tuple[str, str]:
  """Returns the key by which the files are sorted."""
  return change.model if isinstance(change, Change) else "", change.file_name


@dataclasses.dataclass
class Comparison:
  """Counts so far."""

  # (model, `BASELINE` or `REFERENCE`, one of `_COUNTED`) -> images
  counts: Counter[tuple[str, str, str]] = dataclasses.field(default_factory=Counter)
  # (model, column, value) -> images
  slices: Counter[tuple[str, str, str]] = dataclasses.field(default_factory=Counter)
  slices_correct: Counter[tuple[str, str, str]] = dataclasses.field(default_factory=Counter)
  strays: int = 0  # manifest rows without an image
  first_stray: tuple[int, str] | None = None  # line and key


def compare(bucket: Bucket, plan: Plan) -> tuple[Comparison, Changes]:
  """Compares one bucket.

  Raises InputError if two rows of tonight, of an earlier night or of the manifest have the same key.
  """
  counts: Counter[tuple[str, str, str]] = Counter()
  changes = Changes([], [], [], [])
  tonight = {model: _by_key(bucket.tonight.get(model, ()), "tonight") for model in plan.models}
  first = tonight[plan.models[0]]
  before = _by_key(bucket.baseline, f"the baseline {plan.baseline}")
  reference = _by_key(bucket.reference, f"the reference {plan.reference}")
  for model, rows in tonight.items():
    for kind, others, found in (
      (BASELINE, *((before, changes) if rows is first else (first, changes._replace(new=[], gone=[])))),
      (REFERENCE, reference, Changes([], [], [], [])),  # counted only
    ):
      if (against := plan.against(model, kind)) is not None:
        counted = _compare_rows(rows, others, model, against, found)
        counts.update({(model, kind, what): count for what, count in counted.items()})
  for listed in changes:
    listed.sort(key=order)
  if plan.manifest is None:
    return Comparison(counts), changes
  manifest_rows = by_key(bucket.manifest, plan.manifest)
  known = first.keys() | set(bucket.unscored)
  strays = [(row.line, row.key) for row in manifest_rows.values() if row.key not in known]
  slices = _count_slices(tonight, manifest_rows, plan.columns)
  return Comparison(counts, *slices, len(strays), min(strays, default=None)), changes


def _by_key(rows: Iterable[Row], where: str) -> dict[str, Row]:
  rows_by_key: dict[str, Row] = {}
  for row in rows:
    if rows_by_key.setdefault(row.key, row) is not row:
      raise InputError(f"{where} has more than one image named {row.key!r}: give each image its own name.")
  return rows_by_key


def _compare_rows(
  tonight: Mapping[str, Row], before: Mapping[str, Row], model: str, against: str, changes: Changes
) -> Counter[str]:
  """Adds to `changes`; returns the counts."""
  baseline = escape_cell(against)
  counted = Counter[str]()
  for key, row in tonight.items():
    then = before.get(key)
    if then is None:
      changes.new.append(New(key, row.actual, row.predicted, row.confidence, str(row.right), row.sha256))
      counted["new"] += 1
      counted["new_correct"] += row.right
      continue
    right, was_right, edited = row.right, then.right, row.sha256 != then.sha256
    changed = edited or row.actual != then.actual
    counted["paired"] += 1
    counted["baseline_correct"] += was_right
    counted["correct"] += right
    counted["edited"] += edited
    counted["changed"] += changed
    counted["changed_correct"] += changed and right
    counted["changed_baseline_correct"] += changed and was_right
    unseen = row.trained_on == str(False) and then.trained_on != str(True)
    counted["unseen_paired"] += unseen
    counted["unseen_correct"] += unseen and right
    counted["unseen_baseline_correct"] += unseen and was_right
    if right != was_right:
      change = Change(
        file_name=key,
        actual_digit=row.actual,
        baseline_digit=then.predicted,
        baseline_confidence=then.confidence,
        predicted_digit=row.predicted,
        confidence=row.confidence,
        edited=str(edited),
        model=model,
        baseline=baseline,
        sha256=row.sha256,
      )
      kind = "regressed" if was_right else "fixed"
      counted[kind] += 1
      counted[f"unseen_{kind}"] += unseen
      counted[f"{kind}_edited"] += edited
      (changes.regressed if was_right else changes.fixed).append(change)
  for key, row in before.items():
    if key not in tonight:
      changes.gone.append(Gone(key, row.actual, row.predicted, row.confidence, row.sha256))
      counted["gone"] += 1
      counted["gone_correct"] += row.right
  return counted


def _count_slices(
  tonight: Mapping[str, Mapping[str, Row]], rows: Mapping[str, ManifestRow], columns: Sequence[str]
) -> tuple[Counter[tuple[str, str, str]], Counter[tuple[str, str, str]]]:
  unknown = (manifest.NOT_IN_MANIFEST,) * len(columns)
  images: Counter[tuple[str, str, str]] = Counter()
  correct: Counter[tuple[str, str, str]] = Counter()
  for model, model_rows in tonight.items():
    for key, row in model_rows.items():
      values = rows[key].values if key in rows else unknown
      for column, value in zip(columns, values, strict=True):
        images[model, column, value] += 1
        correct[model, column, value] += row.right
  return images, correct


def merge(comparisons: Iterable[Comparison]) -> Comparison:
  """Adds up comparisons.

  Raises InputError if a manifest column has more than `MAX_SLICES` values.
  """
  merged = Comparison()
  for comparison in comparisons:
    merged.counts.update(comparison.counts)
    merged.slices.update(comparison.slices)
    merged.slices_correct.update(comparison.slices_correct)
    merged.strays += comparison.strays
    merged.first_stray = min(filter(None, (merged.first_stray, comparison.first_stray)), default=None)
  for column, values in Counter(column for column, _ in {place[1:] for place in merged.slices}).items():
    if values > MAX_SLICES:
      raise InputError(
        f"column {column!r} of the manifest has more than {MAX_SLICES:,} different values: remove it or group its"
        " values."
      )
  return merged


def check(comparison: Comparison, plan: Plan) -> None:
  """Checks that baseline, reference and manifest fit tonight's images.

  Raises InputError if an earlier night has no image in common with tonight, or a manifest row has no image.
  """
  model = plan.models[0]
  for kind, remedy in ((BASELINE, "--baseline NIGHT, --baseline none"), (REFERENCE, "another --reference")):
    new, gone, paired = (comparison.counts[model, kind, what] for what in ("new", "gone", "paired"))
    if new and gone and not paired:
      raise InputError(
        f"the {kind} {plan.against(model, kind)} has none of tonight's {new:,} images (it has {gone:,} others): give"
        f" {remedy}, or another --input."
      )
  if comparison.first_stray:
    line, key = comparison.first_stray
    rows = "row has" if comparison.strays == 1 else "rows have"
    raise InputError(
      f"{plan.manifest}: {comparison.strays:,} {rows} no evaluated image; the first is {key!r} in line {line}:"
      " remove such rows, or give another --input or --split."
    )


def extract(comparison: Comparison, plan: Plan, kind: str = BASELINE) -> dict[str, ComparisonResult]:
  """Returns model -> comparison with its baseline, or with the reference."""
  return {model: _result(comparison.counts, model, kind, plan.against(model, kind)) for model in plan.models}


def _result(counts: Mapping[tuple[str, str, str], int], model: str, kind: str, against: str | None) -> ComparisonResult:
  if against is None:
    return ComparisonResult(verdict=NO_BASELINE)
  counted = {what: counts.get((model, kind, what), 0) for what in _COUNTED}
  kind = "unseen_" if counted["unseen_paired"] else ""
  regressed, fixed, images = (counted[f"{kind}{what}"] for what in ("regressed", "fixed", "paired"))
  p_value = mcnemar_p_value(regressed, fixed)
  verdict = NO_DIFFERENCE
  if p_value < SIGNIFICANT:
    verdict = WORSE if regressed > fixed else BETTER
  # One division: the difference of two rounded quotients could exceed a gate that is only reached.
  drop = (counted[f"{kind}baseline_correct"] - counted[f"{kind}correct"]) / images if images else None
  return ComparisonResult(against, **counted, drop=drop, p_value=p_value, verdict=verdict)


def extract_slices(comparison: Comparison, plan: Plan, min_slice_size: int) -> dict[str, dict[str, ColumnSlices]]:
  """Returns model -> column -> slices.

  Slices of fewer than `min_slice_size` images are pooled.
  """
  counts: dict[str, dict[str, dict[str, tuple[int, int]]]] = {
    model: {column: {} for column in plan.columns} for model in plan.models
  }
  for (model, column, value), images in sorted(comparison.slices.items()):
    counts[model][column][value] = images, comparison.slices_correct[model, column, value]
  return {
    model: {column: _column(values, min_slice_size) for column, values in columns.items()}
    for model, columns in counts.items()
  }


def _column(counts: dict[str, tuple[int, int]], min_slice_size: int) -> ColumnSlices:
  unlisted = counts.pop(manifest.NOT_IN_MANIFEST, None)
  small = [count for count in counts.values() if count[0] < min_slice_size]
  pooled = [sum(numbers) for numbers in zip(*small, strict=True)]
  return ColumnSlices(
    {value: SliceFigures(*_rates(*count)) for value, count in counts.items() if count[0] >= min_slice_size},
    PooledSlices(len(small), min_slice_size, *_rates(*pooled)) if small else None,
    SliceFigures(*_rates(*unlisted)) if unlisted else None,
  )


def _rates(images: int, correct: int) -> tuple[int, int, float, Interval]:
  return images, correct, correct / images, wilson_interval(correct, images)
