"""What reports are made of here: seeded outcomes counted by the real functions, pictures of scikit-learn's digits."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from reporting.gates import judge, overall
from transforms.core.intervals import wilson_interval
from transforms.core.label_stats import Outcome, evaluate_in_memory, metrics_json
from transforms.core.mistakes import Mistakes, as_picture
from transforms.core.predictions import Row
from transforms.core.thumbnails import thumbnail

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
  """What `render_report` takes."""

  metrics: dict[str, Any]
  pictures: dict[str, list[dict[str, Any]]]
  quarantined: list[tuple[str, str, int, str, str]] = dataclasses.field(default_factory=list)
  info: dict[str, Any] = dataclasses.field(default_factory=dict)
  trend: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  title: str = "MNIST, 10,000 test pictures"


def outcomes(labels: Sequence[str], number: int, wrong: float, seed: int = 5) -> list[Outcome]:
  """Returns outcomes of which about a part `wrong`, 0..1, is wrong, some kinds of mistakes much more often."""
  rng = np.random.default_rng(seed)
  size = len(labels)
  likes = rng.pareto(0.7, (size, size)) + 1e-9
  np.fill_diagonal(likes, 0)
  hard = rng.uniform(0.2, 1.8, size) * wrong
  found = []
  for _ in range(number):
    actual = int(rng.integers(size))
    mistaken = size > 1 and rng.random() < hard[actual]
    predicted = int(rng.choice(size, p=likes[actual] / likes[actual].sum())) if mistaken else actual
    confidence = float(rng.beta(2.4, 1.6) if mistaken else rng.beta(14, 0.6))
    confidence = min(max(confidence, 1 / size), 1.0)
    score = confidence if not mistaken else (1 - confidence) * 0.7
    found.append(Outcome(labels[actual], labels[predicted], confidence, score, 1 + mistaken))
  return found


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


def mistakes_of(model: str, found: Sequence[Outcome]) -> tuple[Mistakes, list[dict[str, Any]]]:
  """Returns the job's choice of mistakes, and the pictures of them that a report shows, with no thumbnail yet."""
  chosen = Mistakes()
  for number, outcome in enumerate(found):
    key = f"testing/{outcome.actual}/{number}.png"
    chosen.add(Row(key, outcome.actual, outcome.predicted, f"{100 * (outcome.confidence or 0):.4f}", "0" * 64))
  return chosen, [as_picture(model, row) for row in chosen.shown()]


def evaluation(labels: Sequence[str] = DIGITS, number: int = 3_000, wrong: float = 0.03, **gates: float) -> Sample:
  """Returns a sample of `evaluate`."""
  found = outcomes(labels, number, wrong)
  chosen, shown = mistakes_of("model", found)
  metrics = metrics_json(evaluate_in_memory(found, labels))
  metrics["suspicious_labels"] = {"threshold": 0.95, "pictures": chosen.suspicious_count}
  metrics["quarantined"] = {"total": 3, "reasons": {"EMPTY": 1, "TRUNCATED": 2}}
  thresholds = {name: gates.get(name) for name in ("min_accuracy", "max_drop", "min_label_recall")}
  metrics["gates"] = judge(metrics, **thresholds)
  metrics["verdict"] = overall(metrics)
  metrics["splits"] = ["testing"]
  sample = Sample(
    metrics,
    {"mistakes": shown, "suspicious": [as_picture("model", row) for row in chosen.suspicious()[:60]]},
    [
      ("testing/4/empty.jpg", "testing", 0, "EMPTY", "The file has 0 bytes."),
      ("testing/7/half.jpg", "testing", 1_204, "TRUNCATED", "The picture ends after 612 of 1,816 bytes."),
      (
        "testing/9/scan of a very long name that somebody gave it (copy 2).jpg",
        "testing",
        48_812,
        "TRUNCATED",
        "Damaged.",
      ),
    ],
    {
      "stage": "evaluate",
      "command": "beam-retrain evaluate --model models/mnist --input data/mnist --output out --min_accuracy 0.97",
      "model": "models/mnist",
      "request": "56658ef020c2ae29d2b774fcd6b9b8340ada798b3dbe0bbdd152365cdc639fac",
      "settings": {
        "input": "data/mnist",
        "labels": list(labels),
        "model_fingerprint": "8a8aee09" * 8,
        "batch_size": 32,
      },
      "trunk": {"handle": "bundled", "fingerprint": "3731b802" * 8, "dimensions": 512, "input_px": 75},
      "versions": {"beam-retrain": "0.1.0", "apache-beam": "2.77.0", "tensorflow": "2.21.0", "python": "3.11.7"},
    },
  )
  _give_thumbnails(sample)
  return sample


def night(labels: Sequence[str] = DIGITS, number: int = 3_000, **gates: float) -> Sample:
  """Returns a sample of `reevaluate`: a model and a candidate, a baseline, nights before, slices."""
  sample = evaluation(labels, number, **gates)
  candidate = evaluation(labels, number, 0.08, **gates)
  rng = np.random.default_rng(3)
  metrics = sample.metrics
  metrics["night"] = "2026-11-24"
  metrics["bottlenecks"] = {"computed": 214, "reused": number - 214}
  metrics["predictions_sha256"] = "c0ffee00" * 8
  for model, figures, baseline, counts in (
    ("model", metrics, "2026-11-23", (9, 6)),
    ("candidate", candidate.metrics, "model", (165, 21)),
  ):
    figures["comparison"] = comparison(baseline, number - 100, figures["correct"] - 90, *counts)
    for kind in ("regressed", "fixed"):
      some = [picture for picture in candidate.pictures["mistakes"] if picture["actual"] != picture["predicted"]]
      place = 0 if kind == "regressed" else 40
      chosen = [_changed(picture, model, kind) for picture in some[place : place + min(counts[kind == "fixed"], 12)]]
      sample.pictures.setdefault(kind, []).extend(chosen)
    figures["gates"] = judge(
      figures, **{name: gates.get(name) for name in ("min_accuracy", "max_drop", "min_label_recall")}
    )
  metrics["slices"] = slices(rng)
  metrics["candidate"] = candidate.metrics
  metrics["verdict"] = overall(metrics)
  for kind in ("mistakes", "suspicious"):
    sample.pictures[kind] += [{**picture, "model": "candidate"} for picture in candidate.pictures[kind]]
  sample.trend = trend(metrics, rng)
  sample.info["models"] = {"model": "models/mnist", "candidate": "models/mnist-tenth"}
  sample.info["settings"]["models"] = {"model": "8a8aee09" * 8, "candidate": "0d15ea5e" * 8}
  sample.title = "Night of 2026-11-24"
  return sample


def comparison(baseline: str, paired: int, correct: int, regressed: int, fixed: int) -> dict[str, Any]:
  changes, fewer = regressed + fixed, min(regressed, fixed)
  p_value = min(1.0, 2 * sum(math.comb(changes, k) for k in range(fewer + 1)) / 2**changes)
  worse = "worse" if regressed > fixed else "better"
  return {
    "baseline": baseline,
    "paired": paired,
    "baseline_correct": correct + regressed - fixed,
    "correct": correct,
    "regressed": regressed,
    "fixed": fixed,
    "new": 100,
    "gone": 100,
    "edited": 100,
    "drop": (regressed - fixed) / paired,
    "p_value": p_value,
    "verdict": worse if p_value < 0.05 else "no difference shown",
  }


def slices(rng: np.random.Generator) -> dict[str, Any]:
  found: dict[str, Any] = {"device": {}, "writer": {}}
  for column, values in (("device", ("scanner A", "scanner B", "phone", "")), ("writer", ("w01", "w02", "w17"))):
    for value in values:
      pictures = int(rng.integers(60, 900))
      correct = int(pictures * rng.uniform(0.93, 0.99))
      found[column][value] = {
        "pictures": pictures,
        "correct": correct,
        "accuracy": correct / pictures,
        "interval_95": list(wilson_interval(correct, pictures)),
      }
  found["writer"]["small"] = {"slices": 42, "pictures": 317, "correct": 309}
  return found


def trend(metrics: dict[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
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
  tonight = {name: metrics[name] for name in ("night", "accuracy", "accuracy_interval_95", "total", "verdict")}
  return [*nights, {**tonight, "per_label": {label: row["recall"] for label, row in metrics["per_label"].items()}}]


def _changed(picture: dict[str, Any], model: str, kind: str) -> dict[str, Any]:
  right = {**picture, "model": model, "baseline_predicted": picture["actual"], "baseline_confidence": 91.25}
  if kind == "regressed":
    return right
  return {
    **right,
    "predicted": picture["actual"],
    "baseline_predicted": picture["predicted"],
    "baseline_confidence": 77.5,
  }


def _give_thumbnails(sample: Sample) -> None:
  """Gives each picture one of the digit that its label stands for, but every 40th none."""
  drawn = digits()
  labels = sample.metrics["labels"]
  for kind in sample.pictures.values():
    for number, picture in enumerate(kind):
      fitting = [image for digit, image in drawn if digit == labels.index(picture["actual"]) % 10]
      picture["thumbnail"] = None if number % 40 == 39 else fitting[number % len(fitting)]
