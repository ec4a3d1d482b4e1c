"""The report: one self-contained HTML file of an evaluation or a night.

It loads no resources and runs no script. Its content security policy forbids both, so that a file name or label that
escaped the escaping would do nothing. Jinja2 and matplotlib are imported with the first report.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beam_retrain.reporting import charts
from beam_retrain.reporting.gates import NOT_PUBLISHED, UNFINISHED
from beam_retrain.reporting.html_tables import (
  MAX_SLICED_COLUMNS,
  Gallery,
  Labels,
  Matrix,
  View,
  confusion,
  label_table,
  slice_tables,
)
from beam_retrain.reporting.wording import (
  MODELS,
  calibrated,
  change,
  compared,
  count,
  counted,
  gate_rows,
  headline,
  interval,
  percent,
  shortened,
)
from beam_retrain.reporting.wording import images as number_of_images
from beam_retrain.transforms.core.metrics.figures import (
  CANDIDATE,
  MISSED,
  MODEL,
  NONE_SET,
  PASSED,
  Averages,
  Calibration,
  ComparisonResult,
  Interval,
  Metrics,
  ModelMetrics,
  QuarantineCounts,
  ShownImage,
  TrendPoint,
)

if TYPE_CHECKING:
  import jinja2
  from markupsafe import Markup

  from beam_retrain.transforms.core.run.run_info import RunInfo  # not at run time: it loads numpy

MAX_TREND_LABELS = 12
# Each state has a symbol and a word, never a colour alone.
_WORDS = {
  PASSED: ("\N{CHECK MARK}", "Passed"),
  MISSED: ("\N{BALLOT X}", "Missed"),
  NONE_SET: ("\N{WHITE CIRCLE}", "No gate set"),
  NOT_PUBLISHED: ("\N{BALLOT X}", "Not published"),
  UNFINISHED: ("\N{BALLOT X}", "Unfinished"),
}
_DASH = "\N{EN DASH}"
_MAX_SETTING = 300  # characters
_S = "\N{RIGHT SINGLE QUOTATION MARK}s"


@dataclasses.dataclass(frozen=True)
class Report:
  """What a report shows.

  Attributes:
    metrics: parts that are missing (calibration, gates, comparison, slices, a candidate, ...) are left out.
    images: `mistakes`, `suspicious`, `regressed`, `fixed` -> images to show.
    quarantined: file_name, split, size_bytes, reason, detail of each image listed; `metrics` has the total.
    trend: nights, the oldest first, tonight last; empty: no trend.
  """

  metrics: Metrics
  images: Mapping[str, Sequence[ShownImage]]
  quarantined: Sequence[Sequence[Any]]
  info: RunInfo
  trend: Sequence[TrendPoint]
  title: str

  def images_of(self, model: str, kind: str) -> list[ShownImage]:
    return [image for image in self.images.get(kind, ()) if image.model == model]


def render_report(report: Report) -> str:
  """Returns the report as HTML; equal contents give equal text."""
  return _environment().get_template("report.html").render(_view(report))


def _environment() -> jinja2.Environment:
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("beam_retrain.reporting", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["counted"] = counted
  return environment


def _view(report: Report) -> View:
  metrics = report.metrics
  models = metrics.models
  state, sentence = headline(metrics)
  gallery = Gallery(Labels(metrics.model.labels))
  matrices = {
    name: confusion(model, name[0], linked=_has_gallery(report, name, model)) for name, model in models.items()
  }
  parts = [_part(report, name, matrices[name], gallery) for name in models]
  return {
    "title": report.title,
    "night": metrics.night,
    "state": state,
    "symbol": _WORDS[state][0],
    "word": _WORDS[state][1],
    "sentence": sentence,
    "several": len(models) > 1,
    "models": [_figures(name, model) for name, model in models.items()],
    "gates": [{**row, "symbol": _WORDS[row["state"]][0]} for row in gate_rows(metrics)],
    "comparisons": [
      _comparison(report, name, model.comparison, gallery) for name, model in models.items() if model.comparison
    ],
    "trend": _trend(report.trend, metrics) if report.trend else None,
    "labels": label_table(metrics.model, metrics.candidate, matrices[MODEL]),
    "parts_of_models": parts,
    "slices": [
      {
        "model": MODELS[name],
        "tables": slice_tables(model.slices),
        "left_out": max(len(model.slices) - MAX_SLICED_COLUMNS, 0),
      }
      for name, model in models.items()
      if model.slices
    ],
    "quarantine": _quarantine(metrics, report.quarantined),
    "made": _made(metrics, report.info),
    "heat": charts.heat_colours(),
  }


def _with_interval(rate: float | None, bounds: Interval | None) -> str:
  return percent(rate) + (f" ({interval(bounds)})" if bounds else "")


def _figures(name: str, model: ModelMetrics) -> View:
  known = model.accuracy is not None
  more = [
    ("right among the first 3", _with_interval(model.top_3_accuracy, model.top_3_accuracy_interval)),
    ("F1, mean over labels", percent((model.macro or Averages()).f1)),
    ("confidence when right", percent(model.mean_confidence_right, 1)),
    ("confidence when wrong", percent(model.mean_confidence_wrong, 1)),
  ]
  return {
    "name": MODELS[name],
    "known": known,
    "accuracy": percent(model.accuracy),
    "right": f"{count(model.correct)} of {number_of_images(model.total)} right",
    "interval": interval(model.accuracy_interval) if known else "",
    "more": [(words, value) for words, value in more if value[0].isdigit()],
  }


def _has_gallery(report: Report, name: str, model: ModelMetrics) -> bool:
  return bool(report.images_of(name, "mistakes")) or model.total == model.correct


def _part(report: Report, name: str, matrix: Matrix, gallery: Gallery) -> View:
  model = report.metrics.models[name]
  total_wrong = model.total - model.correct
  return {
    "prefix": matrix.prefix,
    "of": "" if name == MODEL else ", candidate",
    "folder": "" if name == MODEL else "candidate/",
    "total_wrong": total_wrong,
    "wrong": number_of_images(total_wrong),
    "matrix": matrix,
    "gallery": _has_gallery(report, name, model),
    "mistakes": gallery.mistakes(report.images_of(name, "mistakes"), model, matrix),
    "suspicious": _suspicious(report, name, gallery),
    "calibration": _calibration(matrix.prefix, model.calibration) if model.calibration else None,
  }


def _suspicious(report: Report, name: str, gallery: Gallery) -> View | None:
  counts = report.metrics.models[name].suspicious
  shown = sorted(report.images_of(name, "suspicious"), key=lambda image: (-image.confidence, image.key))
  if not counts or (counts.images and not shown):
    return None
  return {
    "threshold": percent(counts.threshold, 0),
    "total": counts.images,
    "number": number_of_images(counts.images),
    "images": gallery.shown(shown),
  }


def _calibration(prefix: str, calibration: Calibration) -> View:
  seen = [row for row in calibration.bins if row.images]
  sentence = calibrated(calibration)
  name, description = f"reliability-{prefix}", f"Reliability diagram. {sentence}"
  return {
    "sentence": sentence,
    "chart": charts.reliability(calibration.bins, name, description) if seen else None,
    "rows": [
      {
        "confidence": f"{100 * row.low:.0f} to {percent(row.high, 0)}",
        "images": count(row.images),
        "mean": percent(row.mean_confidence, 1),
        "accuracy": percent(row.accuracy, 1),
        "interval": interval(row.interval),
      }
      for row in seen
    ],
  }


def _comparison(report: Report, name: str, comparison: ComparisonResult, gallery: Gallery) -> View:
  baseline = comparison.baseline
  is_candidate = name == CANDIDATE  # compared with the model, whose own baseline does not matter here
  against = "the model tonight" if is_candidate else shortened(baseline or "")
  before, now = ("by the model", "by the candidate") if is_candidate else ("before", "now")
  changed = [
    {
      "kind": kind,
      "explained": explained,
      "number": number or 0,
      "images": gallery.shown(report.images_of(name, kind)),
    }
    for kind, number, explained in (
      ("regressed", comparison.regressed, f"right {before}, wrong {now}"),
      ("fixed", comparison.fixed, f"wrong {before}, right {now}"),
    )
  ]
  finding, chance = compared(comparison, f"the {name}", against)
  return {
    "heading": f"{MODELS[name]} against {against}" if baseline else MODELS[name],
    "finding": finding,
    "chance": chance,
    "before": "model" if is_candidate else "was",
    "now": "candidate" if is_candidate else "now",
    "verdict": comparison.verdict,
    "known": baseline is not None and bool(comparison.paired),
    "changed": changed,
    "any": any(group["number"] for group in changed),
    "figures": _compared_figures(comparison, before, now, is_candidate) if baseline else [],
  }


def _compared_figures(comparison: ComparisonResult, before: str, now: str, is_candidate: bool) -> list[tuple[str, str]]:
  counts = [
    ("images in both", comparison.paired),
    (f"right {before}", comparison.baseline_correct),
    (f"right {now}", comparison.correct),
    ("regressed", comparison.regressed),
    ("fixed", comparison.fixed),
  ]
  if not is_candidate:
    counts += [
      ("new, only now", comparison.new),
      ("gone, only before", comparison.gone),
      ("edited, same name", comparison.edited),
    ]
  figures = [(words, _DASH if number is None else count(number)) for words, number in counts]
  drop, p_value = comparison.drop, comparison.p_value
  figures.insert(3, ("change in accuracy", _DASH if drop is None else change(drop)))
  figures.insert(6, (f"McNemar{_S} exact p", _DASH if p_value is None else f"{p_value:.2g}"))
  return figures


def _trend(nights: Sequence[TrendPoint], metrics: Metrics) -> View:
  names = [night.night for night in nights]
  gate = metrics.model.gates.get("min_accuracy")
  threshold = gate.threshold if gate else None
  worst = _worst_labels(nights[-1], metrics.model.labels)
  recalls = {label: [night.recalls.get(label) for night in nights] for label in worst}
  seen = [rate for rates in recalls.values() for rate in rates if rate is not None]
  limits = (int(100 * min(seen, default=0.99) - 1e-9) / 100, 1.0)
  drawn = len(nights) > 1
  last = f"{percent(nights[-1].accuracy)} on {names[-1]}"
  description = f"Accuracy of {len(nights)} nights, {names[0]} to {names[-1]}: {last}."
  return {
    "chart": charts.trend(nights, threshold, "trend", description) if drawn else None,
    "nights": count(len(nights)),
    "threshold": None if threshold is None else f"{100 * threshold:g}\N{NO-BREAK SPACE}%",
    "rows": [
      {
        "night": night.night,
        "accuracy": percent(night.accuracy),
        "interval": "" if night.accuracy is None else interval(night.accuracy_interval),
        "images": count(night.total),
        "verdict": night.verdict,
        "recalls": [percent(recalls[label][place]) for label in worst],
      }
      for place, night in enumerate(nights)
    ],
    "low": percent(limits[0], 0),
    "all": len(worst) == len(metrics.model.labels),
    "labels": [
      {
        "label": shortened(label),
        "first": percent(next((rate for rate in rates if rate is not None), None)),
        "last": percent(rates[-1]),
        "chart": _small_trend(place, names, rates, limits) if drawn else None,
      }
      for place, (label, rates) in enumerate(recalls.items())
    ],
  }


def _worst_labels(tonight: TrendPoint, labels: Sequence[str]) -> list[str]:
  recalls = {label: rate for label in labels if (rate := tonight.recalls.get(label)) is not None}
  return sorted(recalls, key=lambda label: recalls[label])[:MAX_TREND_LABELS]


def _small_trend(
  place: int, names: Sequence[str], rates: Sequence[float | None], limits: tuple[float, float]
) -> Markup:
  description = f"Recall over the nights: {percent(rates[-1])} tonight."
  return charts.small_trend(names, rates, limits, f"trend-{place}", description)


def _quarantine(metrics: Metrics, rows: Sequence[Sequence[Any]]) -> View:
  counts = metrics.model.quarantined or QuarantineCounts(len(rows), {})
  return {
    "total": counts.total,
    "number": number_of_images(counts.total),
    "reasons": [(reason, count(number)) for reason, number in sorted(counts.reasons.items())],
    "left_out": counts.total - len(rows),
    "rows": [
      (shortened(name), split, count(int(size)), reason, shortened(detail))
      for name, split, size, reason, detail in rows
    ],
  }


def _made(metrics: Metrics, info: RunInfo) -> View:
  settings, trunk = info.settings, info.trunk
  # A night has `models`, an evaluation one `model`.
  paths = dict(sorted(info.models.items())) or {"model": info.model or ""}
  fingerprints = settings.get("models") or {"model": settings.get("model_fingerprint")}
  stored = metrics.bottlenecks
  facts = [
    ("Images", settings.get("input")),
    ("Splits", ", ".join(metrics.splits)),
    *((MODELS[name], path) for name, path in paths.items()),
    *((f"{MODELS[name]}{_S} fingerprint", fingerprint) for name, fingerprint in fingerprints.items()),
    ("Trunk", trunk.handle),
    (f"Trunk{_S} fingerprint", trunk.fingerprint),
    ("Bottlenecks", stored and f"{count(stored.computed)} computed, {count(stored.reused)} reused"),
    ("SHA-256 of the predictions", metrics.predictions_sha256),
    ("Request", info.request),
  ]
  return {
    "command": info.command,
    "facts": [(name, str(value)) for name, value in facts if value],
    "versions": sorted(info.versions.items()),
    "settings": [(name, _short_json(value)) for name, value in sorted(settings.items())],
  }


def _short_json(value: Any) -> str:
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= _MAX_SETTING else f"{text[:_MAX_SETTING]}\N{HORIZONTAL ELLIPSIS}"
