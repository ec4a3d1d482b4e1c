"""What reports are made of here: seeded outcomes counted by the real functions, images of scikit-learn's digits."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beam_retrain.reporting.gates import judge
from beam_retrain.reporting.html_report import Report
from beam_retrain.transforms.core.images.thumbnails import thumbnail
from beam_retrain.transforms.core.metrics.comparison import Bucket, Change, Plan, compare, extract, extract_slices
from beam_retrain.transforms.core.metrics.embedding_map import EmbeddingMap, SampledVector, VectorSample, project
from beam_retrain.transforms.core.metrics.figures import ModelMetrics, ShownImage, SuspiciousLabels, TrendPoint
from beam_retrain.transforms.core.metrics.label_stats import Outcome, evaluate_in_memory
from beam_retrain.transforms.core.metrics.metrics_file import metrics_from_json, model_from_json, model_to_json
from beam_retrain.transforms.core.metrics.predictions import Mistakes, Row, shown_image
from beam_retrain.transforms.core.metrics.statistics import wilson_interval
from beam_retrain.transforms.core.metrics.training_log import TrainingEpoch, TrainingLog
from beam_retrain.transforms.core.records.csv_format import escape_cell
from beam_retrain.transforms.core.records.slice_manifest import ManifestRow
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo

DIGITS = tuple("0123456789")
HOSTILE = (
  "<script>alert(1)</script>",
  '"><img src=x onerror=alert(2)>',
  "javascript:alert(3)",
  "{{ 7 * 7 }}",
  "$x$",
  "=cmd",
  "'=cmd",
)


@dataclasses.dataclass
class Sample:
  """What `render_report` takes, as JSON values that a test may change."""

  metrics: dict[str, Any]
  images: dict[str, list[dict[str, Any]]]
  quarantined: list[tuple[str, str, int, str, str]] = dataclasses.field(default_factory=list)
  info: RunInfo = dataclasses.field(default_factory=lambda: RunInfo("evaluate"))
  trend: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  title: str = "MNIST, 10,000 test images"
  training: TrainingLog = dataclasses.field(default_factory=TrainingLog)
  map: EmbeddingMap | None = None

  def report(self) -> Report:
    return Report(
      metrics_from_json(self.metrics),
      {kind: [ShownImage(**image) for image in images] for kind, images in self.images.items()},
      self.quarantined,
      self.info,
      [_trend_point(**night) for night in self.trend],
      self.title,
      "2026-11-24",
      {"model": self.training},
      self.map,
    )


def _trend_point(
  night: str,
  accuracy: float | None,
  accuracy_interval_95: Sequence[float],
  total: int,
  per_label: Mapping[str, float | None],
  verdict: str = "none set",
) -> TrendPoint:
  low, high = accuracy_interval_95
  return TrendPoint(night, accuracy, (low, high), total, verdict, per_label)


def outcomes(labels: Sequence[str], number: int, wrong: float, seed: int = 5) -> list[Outcome]:
  """Returns outcomes of which about a part `wrong`, 0..1, is wrong, some kinds of mistakes much more often.

  The labels themselves are the same for any `wrong` and `seed`.
  """
  size = len(labels)
  actuals = np.random.default_rng(size).integers(size, size=number).tolist()
  rng = np.random.default_rng(seed)
  likes = rng.pareto(0.7, (size, size)) + 1e-9
  np.fill_diagonal(likes, 0)
  hard = rng.uniform(0.2, 1.8, size) * wrong
  found = []
  for actual in actuals:
    mistaken = size > 1 and rng.random() < hard[actual]
    predicted = int(rng.choice(size, p=likes[actual] / likes[actual].sum())) if mistaken else actual
    confidence = min(max(float(rng.beta(2.4, 1.6) if mistaken else rng.beta(14, 0.6)), 1 / size), 1.0)
    score = (1 - confidence) * 0.7 if mistaken else confidence
    found.append(Outcome(labels[actual], labels[predicted], confidence, score, 1 + int(mistaken)))
  return found


def rows(found: Sequence[Outcome]) -> list[Row]:
  """Returns outcomes as lines of `predictions.csv`."""
  return [
    Row(
      f"testing/{escape_cell(outcome.actual)}/{number}.png",
      escape_cell(outcome.actual),
      escape_cell(outcome.predicted),
      f"{100 * (outcome.confidence or 0):.4f}",
      f"{number:064x}",
    )
    for number, outcome in enumerate(found)
  ]


@functools.cache
def digits() -> list[tuple[int, str]]:
  """Returns (digit, thumbnail) of scikit-learn's digits."""
  from PIL import Image
  from sklearn.datasets import load_digits

  data = load_digits()
  made = []
  for pixels, target in zip(data.images[:400], data.target, strict=False):
    file = io.BytesIO()
    Image.fromarray((pixels * 15.9).astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC).save(file, "PNG")
    made.append((int(target), thumbnail(file.getvalue()) or ""))
  return made


def _map(labels: Sequence[str], found: Sequence[Outcome]) -> EmbeddingMap:
  """Returns a map of random vectors around one for each label; a mistake lies between its two."""
  rng = np.random.default_rng(8)
  middles = dict(zip(labels, rng.normal(size=(len(labels), 16)), strict=True))
  sample = VectorSample(1)
  for row, one in zip(rows(found), found, strict=True):
    vector = middles[one.actual] + middles[one.predicted] + rng.normal(size=16, scale=0.6)
    sample.add(row.key.replace(escape_cell(one.actual), one.actual), row.sha256, one, vector)
  return project(SampledVector(*one) for one in sample.to_json())


def _training(labels: Sequence[str]) -> TrainingLog:
  epochs = [
    TrainingEpoch(number, 1.9 / number, 1 - 0.4 / number, 0.05 + 1.8 / number + number / 80, 1 - 0.5 / number)
    for number in range(1, 21)
  ]
  best = min(epochs, key=lambda one: one.validation_loss).number
  counts = {"training": 900, "validation": 100, "testing": 0}
  return TrainingLog(tuple(epochs), best, {split: dict.fromkeys(labels, number) for split, number in counts.items()})


def _figures(labels: Sequence[str], found: Sequence[Outcome]) -> tuple[ModelMetrics, Mistakes]:
  chosen = Mistakes()
  for row in rows(found):
    chosen.add(row)
  model = evaluate_in_memory(found, labels)
  return dataclasses.replace(model, suspicious=SuspiciousLabels(0.95, chosen.suspicious_count)), chosen


def _judged(model: ModelMetrics, gates: Mapping[str, float]) -> dict[str, Any]:
  return model_to_json(dataclasses.replace(model, gates=judge(model, gates)))


def _image(model: str, row: Row) -> dict[str, Any]:
  return dataclasses.asdict(shown_image(model, row))


def evaluation(labels: Sequence[str] = DIGITS, number: int = 3_000, wrong: float = 0.03, **gates: float) -> Sample:
  """Returns a sample of `evaluate`."""
  found = outcomes(labels, number, wrong)
  model, chosen = _figures(labels, found)
  metrics = _judged(model, gates)
  metrics["quarantined"] = {"total": 3, "reasons": {"EMPTY": 1, "TRUNCATED": 2}}
  metrics["splits"] = ["testing"]
  sample = Sample(
    metrics,
    {
      "mistakes": [_image("model", row) for row in chosen.shown()],
      "suspicious": [_image("model", row) for row in chosen.suspicious()[:60]],
      "right": [_image("model", row) for row in chosen.right()],
    },
    [
      ("testing/4/empty.jpg", "testing", 0, "EMPTY", "The file has 0 bytes."),
      ("testing/7/half.jpg", "testing", 1_204, "TRUNCATED", "The image ends after 612 of 1,816 bytes."),
      ("testing/9/a scan with the long name that somebody gave it (2).jpg", "testing", 48_812, "TRUNCATED", "Damaged."),
    ],
    RunInfo(
      "evaluate",
      command="beam-retrain evaluate --model models/mnist --input data/mnist --output out --min_accuracy 0.97",
      model="models/mnist",
      request="56658ef020c2ae29d2b774fcd6b9b8340ada798b3dbe0bbdd152365cdc639fac",
      settings={
        "input": "data/mnist",
        "labels": list(labels),
        "model_fingerprint": "8a8aee09" * 8,
        "batch_size": 32,
      },
      trunk=TrunkInfo("bundled", "3731b802" * 8, 75, 512, "3731b802" * 8),
      versions={"beam-retrain": "0.1.0", "apache-beam": "2.77.0", "tensorflow": "2.21.0", "python": "3.11.7"},
    ),
    training=_training(labels),
    map=_map(labels, found),
  )
  give_thumbnails(sample)
  return sample


def night(labels: Sequence[str] = DIGITS, number: int = 3_000, **gates: float) -> Sample:
  """Returns a sample of `reevaluate`: a model and a candidate, a baseline, the nights before, slices."""
  sample = evaluation(labels, number)
  tonight, of_candidate = outcomes(labels, number, 0.03), outcomes(labels, number, 0.08, seed=6)
  candidate, chosen = _figures(labels, of_candidate)
  metrics = sample.metrics
  metrics |= {
    "night": "2026-11-24",
    "bottlenecks": {"computed": 214, "reused": number - 214},
    "predictions_sha256": "c0ffee00" * 8,
  }
  plan = Plan(("model", "candidate"), "2026-11-23", "manifest.csv", ("device", "writer"))
  bucket = _bucket(rows(tonight), rows(of_candidate), rows(outcomes(labels, number, 0.03, seed=9)))
  counts, changes = compare(bucket, plan)
  compared, slices = extract(counts, plan), extract_slices(counts, plan, 30)
  judged = {
    name: _judged(dataclasses.replace(model, comparison=compared[name], slices=slices[name]), gates)
    for name, model in (("model", model_from_json(metrics)), ("candidate", candidate))
  }
  metrics |= {**judged["model"], "candidate": judged["candidate"]}
  sample.images["mistakes"] += [_image("candidate", row) for row in chosen.shown()]
  sample.images["suspicious"] += [_image("candidate", row) for row in chosen.suspicious()[:60]]
  for kind, found in (("regressed", changes.regressed), ("fixed", changes.fixed)):
    by_model = [[change for change in found if change.model == model][:12] for model in plan.models]
    sample.images[kind] = [_change(change) for of_model in by_model for change in of_model]
  sample.trend = trend(metrics)
  sample.info = dataclasses.replace(
    sample.info,
    models={"model": "models/mnist", "candidate": "models/mnist-tenth"},
    settings={**sample.info.settings, "models": {"model": "8a8aee09" * 8, "candidate": "0d15ea5e" * 8}},
  )
  sample.title = "Night of 2026-11-24"
  give_thumbnails(sample)
  return sample


def _bucket(tonight: list[Row], of_candidate: list[Row], others: list[Row]) -> Bucket:
  """Returns two models' night beside a baseline: a fifth of it `others`, a thirtieth edited, 100 gone, 100 new."""
  baseline = [
    (other if place % 5 == 0 else row)._replace(sha256=row.sha256 if place % 30 else "f" * 64)
    for place, (row, other) in enumerate(zip(tonight, others, strict=True))
  ]
  gone = [row._replace(key=f"{row.key}.gone") for row in baseline[:100]]
  manifest_rows = [
    ManifestRow(line, row.key, (("scanner A", "scanner B", "phone")[line % 3], f"writer {line * line % 97:02}"))
    for line, row in enumerate(tonight[100:], start=2)
  ]
  return Bucket({"model": tonight, "candidate": of_candidate}, [*baseline[100:], *gone], manifest_rows)


def _change(change: Change) -> dict[str, Any]:
  row = Row(change.file_name, change.actual_digit, change.predicted_digit, change.confidence, change.sha256)
  baseline = {"baseline_predicted": change.baseline_digit, "baseline_confidence": float(change.baseline_confidence)}
  return {**_image(change.model, row), **baseline, "edited": change.edited == "True"}


def trend(metrics: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns 21 nights, of which three were left out and one went badly."""
  rng = np.random.default_rng(3)
  nights: list[dict[str, Any]] = []
  for day in (*range(1, 9), *range(12, 24)):
    total = metrics["total"] - 10 * (24 - day)
    correct = int(total * (metrics["accuracy"] + rng.normal(0, 0.0025) - 0.012 * (day == 16)))
    nights.append(
      {
        "night": f"2026-11-{day:02}",
        "accuracy": correct / total,
        "accuracy_interval_95": list(wilson_interval(correct, total)),
        "total": total,
        "verdict": "none set" if day < 5 else "missed" if day == 16 else "passed",
        "per_label": {
          label: None if row["recall"] is None else min(1.0, max(0.0, row["recall"] + float(rng.normal(0, 0.006))))
          for label, row in metrics["per_label"].items()
        },
      }
    )
  tonight = {name: metrics[name] for name in ("night", "accuracy", "accuracy_interval_95", "total")}
  tonight["verdict"] = metrics_from_json(metrics).verdict
  return [*nights, {**tonight, "per_label": {label: row["recall"] for label, row in metrics["per_label"].items()}}]


def give_thumbnails(sample: Sample) -> None:
  """Gives each image one of the digit that its label stands for, but every 40th none."""
  drawn = digits()
  places = {escape_cell(label): place for place, label in enumerate(sample.metrics["labels"])}
  for kind in sample.images.values():
    for number, picture in enumerate(kind):
      fitting = [image for digit, image in drawn if digit == places[picture["actual"]] % 10]
      picture["thumbnail"] = None if number % 40 == 39 else fitting[number % len(fitting)]
