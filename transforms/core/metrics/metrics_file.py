"""Reads and writes `metrics.json`.

Its keys are those of version 0.1, so that nights of any version can be compared; `_KEYS` maps field names to them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from beam_retrain.transforms.core.metrics.figures import (
  CANDIDATE,
  Averages,
  BadInputs,
  Calibration,
  CalibrationBin,
  ColumnSlices,
  ComparisonResult,
  GateResult,
  LabelRow,
  Metrics,
  ModelMetrics,
  PooledSlices,
  QuarantineCounts,
  SliceFigures,
  SuspiciousLabels,
)
from beam_retrain.transforms.core.records.shards import BottleneckCounts

METRICS_FILE = "metrics.json"

Json = dict[str, Any]
Entries = Mapping[str, Any]
"""A JSON object, as it is written and as it is read."""

_KEYS = {
  "images": "pictures",
  "low": "from",
  "high": "to",
  "interval": "interval_95",
  "accuracy_interval": "accuracy_interval_95",
  "top_3_accuracy_interval": "top_3_accuracy_interval_95",
  "expected_error": "expected_calibration_error",
  "suspicious": "suspicious_labels",
  "confusion": "confusion_matrix",
}


class MetricsError(ValueError):
  """Invalid contents of a `metrics.json`."""


def write_metrics(metrics: Metrics) -> str:
  """Returns the text of `metrics.json`."""
  return f"{_layout(metrics_to_json(metrics))}\n"


def metrics_to_json(metrics: Metrics) -> Json:
  """Returns the contents of `metrics.json`; inverse of `metrics_from_json`."""
  model = model_to_json(metrics.model)
  about = {
    "night": metrics.night,
    "splits": list(metrics.splits),
    "trunk": metrics.trunk,
    "stored_bottlenecks": metrics.stored_bottlenecks,
    "bottlenecks": _to_json(metrics.bottlenecks),
    "trunk_kind": model.pop("trunk_kind", None),
    "predictions_sha256": metrics.predictions_sha256,
    "bad_inputs": _to_json(metrics.bad_inputs),
  }
  candidate = {CANDIDATE: model_to_json(metrics.candidate)} if metrics.candidate else {}
  return {**_known(about), **model, **candidate, "verdict": metrics.verdict}


def model_to_json(model: ModelMetrics) -> Json:
  """Returns one model's figures; inverse of `model_from_json`."""
  names = [field.name for field in dataclasses.fields(model)]
  measured = {_key(name): _to_json(getattr(model, name)) for name in names[: names.index("rows")]}
  slices: dict[str, Json] = {} if model.slices is None else {"slices": {}, "slices_beside": {}}
  for column, column_slices in (model.slices or {}).items():
    slices["slices"][column] = {value: _to_json(row) for value, row in column_slices.values.items()}
    slices["slices_beside"][column] = _beside_to_json(column_slices)
  optional = {
    "suspicious_labels": _to_json(model.suspicious),
    "comparison": _to_json(model.comparison),
    **slices,
    "quarantined": _to_json(model.quarantined),
    "gates": {name: _gate_to_json(gate) for name, gate in model.gates.items()} or None,
  }
  return {
    **_known({"trunk_kind": model.trunk_kind}),
    **measured,
    "labels": model.labels,
    "per_label": {row.label: _row_to_json(row) for row in model.rows},
    "confusion_matrix": [list(row) for row in model.confusion],
    **_known(optional),
  }


def _known(entries: Entries) -> Json:
  return {key: value for key, value in entries.items() if value is not None}


def _row_to_json(row: LabelRow) -> Json:
  entries = {name: value for name, value in vars(row).items() if not name.endswith(("_low", "_high"))}
  del entries["label"]
  intervals = {f"{rate}_interval_95": _to_json(row.interval(rate)) for rate in ("recall", "precision")}
  return {**entries, **intervals, "most_confused_with": row.most_confused_with or None}


def _beside_to_json(column: ColumnSlices) -> Json:
  small = column.small
  pooled = small and {"slices": small.slices, "fewer_than": small.fewer_than, **_to_json(small.figures)}
  return {"small": pooled, "unlisted": _to_json(column.unlisted)}


def _gate_to_json(gate: GateResult) -> Json:
  entries: Json = _to_json(gate)
  if gate.failing is None:
    del entries["failing"]
  return entries


def _key(name: str) -> str:
  return _KEYS.get(name, name)


def _to_json(value: Any) -> Any:
  if dataclasses.is_dataclass(value):
    return {_key(field.name): _to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
  return [_to_json(entry) for entry in value] if isinstance(value, tuple) else value


def _layout(value: Any, indent: str = "") -> str:
  """Returns JSON text with one entry per line, number lists unbroken.

  With a number per line, the confusion matrix of 1,000 labels would take 9 MB.
  """
  inner = indent + "  "
  if isinstance(value, dict) and value:
    entries = [f"{json.dumps(key)}: {_layout(entry, inner)}" for key, entry in value.items()]
    opening, closing = "{}"
  elif isinstance(value, list) and any(isinstance(entry, (dict, list, str)) for entry in value):
    entries = [_layout(entry, inner) for entry in value]
    opening, closing = "[]"
  else:
    return json.dumps(value)
  return opening + ",".join(f"\n{inner}{entry}" for entry in entries) + f"\n{indent}{closing}"


_Record = TypeVar("_Record")


def metrics_from_json(entries: Entries, required: Collection[str] = ()) -> Metrics:
  """Reads a `metrics.json` of any version.

  Raises:
    MetricsError: a required key is missing, or a value has the wrong type.
  """
  for name, (holds, kind) in _CHECKS.items():
    if name not in entries:
      if name in required:
        raise MetricsError(f"its {METRICS_FILE} has no {name!r}")
    elif not holds(entries[name]):
      raise MetricsError(f"its {name!r} in {METRICS_FILE} is not {kind}")
  _check_tables(entries)
  candidate = entries.get(CANDIDATE)
  return Metrics(
    model=model_from_json(entries),
    candidate=model_from_json(candidate) if candidate else None,
    night=entries.get("night"),
    splits=tuple(entries.get("splits", ())),
    trunk=entries.get("trunk", ""),
    stored_bottlenecks=entries.get("stored_bottlenecks"),
    bottlenecks=_optional(BottleneckCounts, entries.get("bottlenecks")),
    predictions_sha256=entries.get("predictions_sha256"),
    bad_inputs=_optional(BadInputs, entries.get("bad_inputs")),
  )


def model_from_json(entries: Entries) -> ModelMetrics:
  rows, columns, beside = entries.get("per_label", {}), entries.get("slices"), entries.get("slices_beside", {})
  plain = {key: value for key, value in entries.items() if not isinstance(value, dict)}
  return dataclasses.replace(
    _record(ModelMetrics, plain),
    macro=_optional(Averages, entries.get("macro")),
    weighted=_optional(Averages, entries.get("weighted")),
    calibration=_calibration_from_json(entries["calibration"]) if entries.get("calibration") else None,
    rows=tuple(_row_from_json(label, rows.get(label, {})) for label in entries.get("labels", ())),
    confusion=tuple(map(tuple, entries.get("confusion_matrix", ()))),
    suspicious=_optional(SuspiciousLabels, entries.get("suspicious_labels")),
    comparison=_optional(ComparisonResult, entries.get("comparison")),
    slices=None
    if columns is None
    else {name: _column_from_json(columns[name], beside.get(name, {})) for name in columns},
    quarantined=_optional(QuarantineCounts, entries.get("quarantined")),
    gates={name: _record(GateResult, gate) for name, gate in entries.get("gates", {}).items()},
    trunk_kind=entries.get("trunk_kind"),
  )


def _calibration_from_json(entries: Entries) -> Calibration:
  bins = tuple(_record(CalibrationBin, row) for row in entries["bins"])
  return Calibration(bins, entries["expected_calibration_error"])


def _row_from_json(label: str, entries: Entries) -> LabelRow:
  bounds = {}
  for rate in ("recall", "precision"):
    bounds[f"{rate}_low"], bounds[f"{rate}_high"] = entries.get(f"{rate}_interval_95") or (None, None)
  confused = entries.get("most_confused_with") or ""
  return _record(LabelRow, {**entries, **bounds, "label": label, "most_confused_with": confused})


def _column_from_json(values: Entries, beside: Entries) -> ColumnSlices:
  small = beside.get("small")
  return ColumnSlices(
    {value: _slice_from_json(row) for value, row in values.items()},
    PooledSlices(small["slices"], small["fewer_than"], _slice_from_json(small)) if small else None,
    _slice_from_json(beside["unlisted"]) if beside.get("unlisted") else None,
  )


def _slice_from_json(entries: Entries) -> SliceFigures:
  return SliceFigures(entries["pictures"], entries["correct"], entries["accuracy"], tuple(entries["interval_95"]))


def _record(kind: type[_Record], entries: Entries) -> _Record:
  """Returns a dataclass of plain values; missing keys keep their defaults."""
  names = {_key(field.name): field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
  known = {names[key]: value for key, value in entries.items() if key in names}
  return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})


def _optional(kind: type[_Record], entries: Entries | None) -> _Record | None:
  return _record(kind, entries) if entries is not None else None


def _is_rate(value: Any) -> bool:
  return value is None or (type(value) in (int, float) and 0 <= value <= 1)


def _is_interval(value: Any) -> bool:
  return isinstance(value, list) and len(value) == 2 and None not in value and all(map(_is_rate, value))


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _is_label_list(value: Any) -> bool:
  return isinstance(value, list) and all(map(_is_text, value))


def _is_table(value: Any) -> bool:
  return isinstance(value, dict) and all(isinstance(entry, dict) for entry in value.values())


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
  "predictions_sha256": (_is_text, "a checksum"),
  "labels": (_is_label_list, "a list of labels"),
  "night": (_is_text, "a name"),
  "accuracy": (_is_rate, "a rate"),
  "accuracy_interval_95": (_is_interval, "an interval"),
  "total": (lambda value: type(value) is int and value >= 0, "a count"),
  "per_label": (_is_table, "a table of all labels"),
  "gates": (_is_table, "a table of gates"),
}


def _check_tables(entries: Entries) -> None:
  rows = entries.get("per_label")
  if rows is not None:
    for label in entries.get("labels", ()):
      if label not in rows:
        raise MetricsError(f"its 'per_label' in {METRICS_FILE} is not a table of all labels")
      if not _is_rate(rows[label].get("recall", "")):
        raise MetricsError(f"the recall of {label!r} in its {METRICS_FILE} is not a rate")
  if not all(isinstance(gate.get("state"), str) for gate in entries.get("gates", {}).values()):
    raise MetricsError(f"a gate in its {METRICS_FILE} has no state")
