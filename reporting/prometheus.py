"""Figures of a night as text for Prometheus.

The format is Prometheus' text exposition format 0.0.4, which node_exporter's textfile collector reads. Each sample has
the path of the history as a label, since a host may evaluate several models.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator, Mapping

from beam_retrain.transforms.core.metrics.figures import MISSED, NONE_SET, Metrics

_GAUGES: Mapping[str, tuple[str, str]] = {
  "images": ("gauge", "Images that were evaluated."),
  "accuracy": ("gauge", "Accuracy on all images, 0 to 1."),
  "unseen_images": ("gauge", "Images that the model was not trained on."),
  "unseen_accuracy": ("gauge", "Accuracy on the images that the model was not trained on, 0 to 1."),
  "recall": ("gauge", "Recall of a label, 0 to 1."),
  "gate_missed": ("gauge", "1 where a gate that is set was missed, else 0."),
  "drop": ("gauge", "Fall in accuracy since the baseline, 0 to 1; negative where it rose."),
  "regressed": ("gauge", "Images that were right in the baseline and are wrong now."),
  "fixed": ("gauge", "Images that were wrong in the baseline and are right now."),
  "bad_inputs": ("gauge", "Inputs that could not be used."),
  "night_timestamp_seconds": ("gauge", "Start of the night's date in UTC, as Unix time."),
}

Sample = tuple[str, Mapping[str, str], float | None]  # name, labels and value of a sample


def prometheus_text(metrics: Metrics, history: str) -> str:
  """Returns one gauge for each figure, by history, model, label and gate."""
  history = os.fsencode(history).decode(errors="replace")  # a path may be no text
  samples = ((name, {"history": history, **labels}, value) for name, labels, value in _samples(metrics))
  return exposition(samples, _GAUGES)


def exposition(samples: Iterable[Sample], kinds: Mapping[str, tuple[str, str]]) -> str:
  """Returns samples as text; `kinds`: name -> type and help."""
  lines: dict[str, list[str]] = {}
  for name, labels, value in samples:
    if value is None:  # of no images
      continue
    pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    lines.setdefault(name, []).append(f"beam_retrain_{name}{f'{{{pairs}}}' if pairs else ''} {value:.10g}\n")
  return "".join(f"{_heading(name, *kinds[name])}{''.join(found)}" for name, found in lines.items())


def _samples(metrics: Metrics) -> Iterator[Sample]:
  for name, model in metrics.models.items():
    of_model = {"model": name}
    yield "images", of_model, model.total
    yield "accuracy", of_model, model.accuracy
    if model.unseen and model.unseen.total:
      yield "unseen_images", of_model, model.unseen.total
      yield "unseen_accuracy", of_model, model.unseen.accuracy
    for row in model.rows:
      yield "recall", {**of_model, "label": row.label}, row.recall
    for gate, result in model.gates.items():
      if result.state != NONE_SET:
        yield "gate_missed", {**of_model, "gate": gate}, result.state == MISSED
    if model.comparison:
      yield "drop", of_model, model.comparison.drop
      yield "regressed", of_model, model.comparison.regressed
      yield "fixed", of_model, model.comparison.fixed
  if metrics.bad_inputs:
    yield "bad_inputs", {"model": next(iter(metrics.models))}, metrics.bad_inputs.quarantined
  if metrics.night:
    start = datetime.datetime.combine(datetime.date.fromisoformat(metrics.night), datetime.time(), datetime.UTC)
    yield "night_timestamp_seconds", {}, start.timestamp()


def _heading(name: str, kind: str, meaning: str) -> str:
  return f"# HELP beam_retrain_{name} {meaning}\n# TYPE beam_retrain_{name} {kind}\n"


def _escape(text: str) -> str:
  return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
