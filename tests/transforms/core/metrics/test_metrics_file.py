"""`metrics.json`: what is written is read again, and files of any version are read."""

from __future__ import annotations

import json

import pytest

from beam_retrain.transforms.core.metrics.figures import LabelRow, Metrics, ModelMetrics
from beam_retrain.transforms.core.metrics.metrics_file import (
  MetricsError,
  metrics_from_json,
  metrics_to_json,
  write_metrics,
)
from tests.report_sample import night


def test_what_is_written_is_read_again() -> None:
  metrics = metrics_from_json(night(number=600, min_accuracy=0.9, min_label_recall=0.99).metrics)
  assert metrics.candidate is not None
  assert metrics.model.slices
  text = write_metrics(metrics)
  assert metrics_from_json(json.loads(text)) == metrics
  assert write_metrics(metrics_from_json(json.loads(text))) == text


def test_the_keys_of_a_night_and_their_order() -> None:
  entries = metrics_to_json(metrics_from_json(night(number=600).metrics))
  model = [
    *("total", "correct", "accuracy", "accuracy_interval_95", "macro", "weighted"),
    *("top_3_accuracy", "top_3_accuracy_interval_95", "log_loss", "mean_confidence_right", "mean_confidence_wrong"),
    *("calibration", "labels", "per_label", "confusion_matrix", "suspicious_labels"),
    *("comparison", "slices", "slices_beside"),
  ]
  assert list(entries["candidate"]) == [*model, "gates"]
  about = ["night", "splits", "trunk", "bottlenecks", "predictions_sha256"]
  assert list(entries) == [*about, *model, "quarantined", "gates", "candidate", "verdict"]
  assert list(entries["calibration"]["bins"][0])[:3] == ["from", "to", "pictures"]
  row = next(iter(entries["per_label"].values()))
  assert list(row)[-2:] == ["recall_interval_95", "precision_interval_95"]


def test_a_row_of_the_confusion_matrix_is_a_line() -> None:
  rows = (LabelRow("a"), LabelRow("b"))
  text = write_metrics(Metrics(ModelMetrics(rows=rows, confusion=((1, 2), (3, 4)))))
  assert '  "confusion_matrix": [\n    [1, 2],\n    [3, 4]\n  ],\n' in text
  assert '  "labels": [\n    "a",\n    "b"\n  ],\n' in text


def test_an_earlier_version_wrote_less() -> None:
  old = {"total": 2, "correct": 1, "accuracy": 0.5, "labels": ["a"], "per_label": {"a": {"support": 2, "recall": 0.5}}}
  metrics = metrics_from_json(old)
  assert metrics.model.recalls() == {"a": 0.5}
  assert (metrics.model.calibration, metrics.model.comparison, metrics.bad_inputs) == (None, None, None)
  assert metrics.verdict == "none set"
  with pytest.raises(MetricsError, match="has no 'night'"):
    metrics_from_json(old, required=["labels", "night"])
  with pytest.raises(MetricsError, match=r"its 'accuracy' in metrics\.json is not a rate"):
    metrics_from_json({**old, "accuracy": 50})
