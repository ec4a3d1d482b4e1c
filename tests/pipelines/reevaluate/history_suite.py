"""Folders of finished nights, and what makes and changes them."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from beam_retrain.pipelines.reevaluate import history

FINGERPRINT = "0123456789abcdef" * 4


REQUEST = "fedcba9876543210" * 4


TODAY = datetime.date(2026, 11, 24)


PREDICTIONS = b"file_name,actual_digit\na.jpg,7\n"


def fill_night(
  folder: Path, night: str, labels: tuple[str, ...] = ("7", "1"), predictions: bytes = PREDICTIONS
) -> None:
  """Writes what a finished night needs, and a store of bottlenecks."""
  folder.mkdir(parents=True, exist_ok=True)
  metrics = {
    "night": night,
    "total": 200,
    "correct": 189,
    "accuracy": 0.945,
    "accuracy_interval_95": [0.904, 0.969],
    "labels": list(labels),
    "per_label": {label: {"support": 100, "recall": 0.9} for label in labels},
    "verdict": "missed",
    "gates": {"min_accuracy": {"state": "passed", "threshold": 0.9, "value": 0.95}},
    "predictions_sha256": hashlib.sha256(predictions).hexdigest(),
  }
  (folder / "info.json").write_text(json.dumps({"stage": "reevaluate"}))
  (folder / "metrics.json").write_text(json.dumps(metrics))
  (folder / "predictions.csv").write_bytes(predictions)
  store = folder / "bottlenecks" / FINGERPRINT[:12]
  store.mkdir(parents=True, exist_ok=True)
  for name in ("records.tfrecord", "COMPLETED"):
    (store / name).write_text("")
  (folder / "COMPLETED").write_text("")


def make_history(tmp_path: Path, *names: str) -> Path:
  folder = tmp_path / "history"
  for name in names:
    fill_night(folder / name, name)
  return folder


def publish_night(folder: Path, date: str, mark: str = "", request: str = REQUEST) -> None:
  with history.tonight(str(folder), date, request) as working:
    fill_night(Path(working), date)
    (Path(working) / "mark").write_text(mark)
    assert history.publish(working, str(folder), date) == str(folder / date)


def tree_of(folder: Path) -> list[str]:
  return sorted(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names)


def change(path: Path, **entries: object) -> None:
  found = json.loads(path.read_text())
  for name, value in entries.items():
    if value is None:
      del found[name]
    else:
      found[name] = value
  path.write_text(json.dumps(found))


def change_metrics(**entries: object) -> Callable[[Path], None]:
  return lambda night: change(night / "metrics.json", **entries)
