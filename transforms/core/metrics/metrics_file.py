"""Reads and writes `metrics.json`.

Its keys are those of version 0.1, so that nights of any version can be compared; `_KEYS` maps field names to them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from beam_retrain.transforms.core.metrics.figures import Metrics, ModelMetrics
from beam_retrain.transforms.core.records.schema import METRICS_FILE
from beam_retrain.transforms.core.system.small_files import parse_json

_KEYS = {
  "images": "pictures",
  "low": "from",
  "high": "to",
  "expected_error": "expected_calibration_error",
  "suspicious": "suspicious_labels",
  "confusion": "confusion_matrix",
}
_LEFT_OUT = (
  "trunk_kind",
  "trained_on",
  "unseen",
  "suspicious",
  "corrections",
  "comparison",
  "reference",
  "slices",
  "quarantined",
  "failing",
  "label_errors",
)
"""Fields without an entry if None; others are null."""


class MetricsError(ValueError):
  """Invalid contents of a `metrics.json`."""


def write_metrics(metrics: Metrics) -> str:
  """Returns the text of `metrics.json`."""
  return f"{_layout(metrics_to_json(metrics))}\n"


def metrics_to_json(metrics: Metrics) -> dict[str, Any]:
  """Returns the contents of `metrics.json`; inverse of `metrics_from_json`."""
  about = {
    "night": metrics.night,
    "splits": metrics.splits,
    "trunk": metrics.trunk,
    "stored_bottlenecks": metrics.stored_bottlenecks,
    "bottlenecks": metrics.bottlenecks,
    "trunk_kind": metrics.model.trunk_kind,
    "predictions_sha256": metrics.predictions_sha256,
    "leaks": metrics.leaks,
    "bad_inputs": metrics.bad_inputs,
  }
  return {
    **{key: _to_json(value) for key, value in about.items() if value is not None},
    **model_to_json(metrics.model),
    **({"candidate": model_to_json(metrics.candidate)} if metrics.candidate else {}),
    "verdict": metrics.verdict,
  }


def model_to_json(model: ModelMetrics) -> dict[str, Any]:
  """Returns one model's figures; inverse of `model_from_json`."""
  entries: dict[str, Any] = {}
  for key, value in _to_json(model).items():
    if key == "rows":
      entries |= {"labels": model.labels, "per_label": {row.pop("label"): row for row in value}}
    elif key == "slices":
      values = {column: slices.pop("values") for column, slices in value.items()}
      entries |= {"slices": values, "slices_beside": value}
    elif key != "gates" or value:
      entries[key] = value
  return entries


def _key(name: str) -> str:
  return f"{name}_95" if name.endswith("interval") else _KEYS.get(name, name)


def _to_json(value: Any) -> Any:
  if dataclasses.is_dataclass(value):
    fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {_key(name): _to_json(entry) for name, entry in fields if entry is not None or name not in _LEFT_OUT}
  if isinstance(value, Mapping):
    return {key: _to_json(entry) for key, entry in value.items()}
  if isinstance(value, tuple):  # of numbers: a row of the confusion matrix, which may be long
    return list(value) if value and isinstance(value[0], (int, float)) else [_to_json(entry) for entry in value]
  return value


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


def metrics_from_json(entries: Mapping[str, Any], required: Collection[str] = ()) -> Metrics:
  """Reads a `metrics.json` of any version.

  Raises MetricsError if a required key is missing, or a value has the wrong type.
  """
  for name, (holds, kind) in _CHECKS.items():
    if name not in entries:
      if name in required:
        raise MetricsError(f"its {METRICS_FILE} has no {name!r}")
    elif not holds(entries[name]):
      raise MetricsError(f"its {name!r} in {METRICS_FILE} is not {kind}")
  for label in entries.get("labels", ()) if "per_label" in entries else ():
    if label not in entries["per_label"]:
      raise MetricsError(f"its 'per_label' in {METRICS_FILE} is not a table of all labels")
    if not _is_rate(entries["per_label"][label].get("recall", "")):
      raise MetricsError(f"the recall of {label!r} in its {METRICS_FILE} is not a rate")
  if not all(_is_text(gate.get("state")) for gate in entries.get("gates", {}).values()):
    raise MetricsError(f"a gate in its {METRICS_FILE} has no state")
  models = {"model": _as_fields(entries), "candidate": _as_fields(entries.get("candidate") or None)}
  try:
    return parse_json(Metrics, {**entries, **models}, _key)
  except (AttributeError, TypeError, ValueError, KeyError) as error:
    raise MetricsError(f"its {METRICS_FILE} has values of another type ({error})") from error


def model_from_json(entries: Mapping[str, Any]) -> ModelMetrics:
  """Reads one model's figures."""
  return parse_json(ModelMetrics, _as_fields(entries), _key)


def _as_fields(entries: Any) -> Any:
  """Returns one model's entries, nested as the fields of `ModelMetrics`."""
  if entries is None:
    return None
  per_label, beside = entries.get("per_label", {}), entries.get("slices_beside", {})
  rows = [{**per_label.get(label, {}), "label": label} for label in entries.get("labels", ())]
  slices = entries.get("slices")
  if slices is not None:
    slices = {column: {"values": values, **beside.get(column, {})} for column, values in slices.items()}
  return {**entries, "rows": rows, "slices": slices}


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
