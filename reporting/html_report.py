"""The report: one HTML file that people can mail, of an evaluation or a night.

It asks for nothing from anywhere, and runs no script: its content security policy forbids both, so that a file name or
a label that got through the escaping would still do nothing. Jinja2 and matplotlib are imported when a report is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beam_retrain.reporting import charts
from beam_retrain.reporting.gates import MISSED, NONE_SET, NOT_PUBLISHED, PASSED, UNFINISHED
from beam_retrain.reporting.html_tables import MAX_SLICED_COLUMNS, Gallery, Labels, confusion, label_table, slice_tables
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
  of_each_model,
  percent,
  shortened,
)
from beam_retrain.reporting.wording import images as number_of_images
from beam_retrain.transforms.core.run.run_info import RunInfo

if TYPE_CHECKING:
  import jinja2

MAX_TREND_LABELS = 12
# Of each state a sign and the word, never a colour alone.
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


def render_report(
  metrics: Mapping[str, Any],
  *,
  images: Mapping[str, Sequence[Mapping[str, Any]]],
  quarantined: Sequence[Sequence[Any]],
  info: RunInfo,
  trend: Sequence[Mapping[str, Any]],
  title: str,
) -> str:
  """Returns the report as HTML; the same arguments give the same text.

  Args:
    metrics: the contents of `metrics.json`. What is not in it (intervals, calibration, gates, comparison, slices,
      candidate, ...) is left out of the report.
    images: `mistakes`, `suspicious`, `regressed`, `fixed` -> images to show: `model` (`model` or `candidate`),
      `key`, `actual`, `predicted`, `confidence` in percent, `baseline_predicted` and `baseline_confidence` or None,
      `thumbnail` (a `data:image/...` URI) or None.
    quarantined: file_name, split, size_bytes, reason, detail of each that is listed: `metrics` has the total.
    info: the contents of `info.json`.
    trend: per night that is shown, the oldest first, tonight the last: `night`, `accuracy`, `accuracy_interval_95`,
      `total`, `verdict`, and `per_label`: label -> recall. Empty: no trend.
    title: what was evaluated.
  """
  return _environment().get_template("report.html").render(_view(metrics, images, quarantined, info, trend, title))


def _environment() -> jinja2.Environment:
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("reporting", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["counted"] = counted
  return environment


def _view(
  metrics: Mapping[str, Any],
  images: Mapping[str, Sequence[Mapping[str, Any]]],
  quarantined: Sequence[Sequence[Any]],
  info: RunInfo,
  trend: Sequence[Mapping[str, Any]],
  title: str,
) -> dict[str, Any]:
  models = of_each_model(metrics)
  state, sentence = headline(metrics)
  gallery = Gallery(Labels(metrics["labels"]))
  parts = [_part(model, figures, images, gallery) for model, figures in models.items()]
  comparisons = [
    _comparison(model, figures["comparison"], images, gallery)
    for model, figures in models.items()
    if figures.get("comparison")
  ]
  return {
    "title": title,
    "night": metrics.get("night"),
    "state": state,
    "symbol": _WORDS[state][0],
    "word": _WORDS[state][1],
    "sentence": sentence,
    "several": len(models) > 1,
    "models": [_figures(model, figures) for model, figures in models.items()],
    "gates": [{**row, "symbol": _WORDS[row["state"]][0]} for row in gate_rows(metrics)],
    "comparisons": comparisons,
    "trend": _trend(trend, metrics),
    "labels": label_table(metrics, metrics.get("candidate"), parts[0]["matrix"]),
    "parts_of_models": parts,
    "slices": [
      {
        "model": MODELS[model],
        "tables": slice_tables(figures["slices"], figures.get("slices_beside", {})),
        "left_out": max(len(figures["slices"]) - MAX_SLICED_COLUMNS, 0),
      }
      for model, figures in models.items()
      if figures.get("slices")
    ],
    "quarantine": _quarantine(metrics, quarantined),
    "made": _made(metrics, info),
    "heat": charts.heat_colours(),
  }


def _with_interval(figures: Mapping[str, Any], rate: str) -> str:
  bounds = figures.get(f"{rate}_interval_95")
  return percent(figures.get(rate)) + (f" ({interval(bounds)})" if bounds else "")


def _figures(model: str, figures: Mapping[str, Any]) -> dict[str, Any]:
  known = figures["accuracy"] is not None
  macro = figures.get("macro") or {}
  more = [
    ("right among the first 3", _with_interval(figures, "top_3_accuracy")),
    ("F1, mean over labels", percent(macro.get("f1"))),
    ("confidence when right", percent(figures.get("mean_confidence_right"), 1)),
    ("confidence when wrong", percent(figures.get("mean_confidence_wrong"), 1)),
  ]
  return {
    "name": MODELS[model],
    "known": known,
    "accuracy": percent(figures["accuracy"]),
    "right": f"{count(figures['correct'])} of {number_of_images(figures['total'])} right",
    "interval": interval(figures["accuracy_interval_95"]) if known else "",
    "more": [(name, value) for name, value in more if value[0].isdigit()],
  }


def _part(
  model: str, figures: Mapping[str, Any], images: Mapping[str, Sequence[Mapping[str, Any]]], gallery: Gallery
) -> dict[str, Any]:
  """Returns one model's matrix, mistakes, suspicious labels and calibration."""
  prefix = "m" if model == "model" else "c"
  total_wrong = figures["total"] - figures["correct"]
  mistakes = _of(model, images, "mistakes")
  # Sections of images without a single one are left out.
  gallery_of_mistakes = bool(mistakes) or not total_wrong
  matrix = confusion(figures, prefix, linked=gallery_of_mistakes)
  suspicious = figures.get("suspicious_labels")
  shown = sorted(_of(model, images, "suspicious"), key=lambda image: (-image["confidence"], image["key"]))
  if suspicious and suspicious["pictures"] and not shown:
    suspicious = None
  return {
    "prefix": prefix,
    "of": "" if model == "model" else ", candidate",
    "folder": "" if model == "model" else "candidate/",
    "total_wrong": total_wrong,
    "wrong": number_of_images(total_wrong),
    "matrix": matrix,
    "gallery": gallery_of_mistakes,
    "mistakes": gallery.mistakes(mistakes, figures, matrix),
    "suspicious": suspicious
    and {
      "threshold": percent(suspicious["threshold"], 0),
      "total": suspicious["pictures"],
      "number": number_of_images(suspicious["pictures"]),
      "pictures": gallery.shown(shown),
    },
    "calibration": _calibration(prefix, figures.get("calibration")),
  }


def _of(model: str, images: Mapping[str, Sequence[Mapping[str, Any]]], kind: str) -> list[Mapping[str, Any]]:
  return [image for image in images.get(kind, ()) if image["model"] == model]


def _calibration(prefix: str, calibration: Mapping[str, Any] | None) -> dict[str, Any] | None:
  if calibration is None:
    return None
  bins = calibration["bins"]
  seen = [row for row in bins if row["pictures"]]
  sentence = calibrated(calibration)
  return {
    "sentence": sentence,
    "chart": charts.reliability(bins, f"reliability-{prefix}", f"Reliability diagram. {sentence}") if seen else None,
    "rows": [
      {
        "confidence": f"{100 * row['from']:.0f} to {percent(row['to'], 0)}",
        "pictures": count(row["pictures"]),
        "mean": percent(row["mean_confidence"], 1),
        "accuracy": percent(row["accuracy"], 1),
        "interval": interval(row.get("interval_95")),
      }
      for row in seen
    ],
  }


def _comparison(
  model: str,
  comparison: Mapping[str, Any],
  images: Mapping[str, Sequence[Mapping[str, Any]]],
  gallery: Gallery,
) -> dict[str, Any]:
  baseline = comparison["baseline"]
  of_candidate = model == "candidate"  # compared with the model, whatever the baseline of that is called
  against = "the model tonight" if of_candidate else shortened(baseline or "")
  before, now = ("by the model", "by the candidate") if of_candidate else ("before", "now")
  changed = [
    {
      "kind": kind,
      "explained": explained,
      "number": comparison[kind] or 0,
      "pictures": gallery.shown(_of(model, images, kind)),
    }
    for kind, explained in (("regressed", f"right {before}, wrong {now}"), ("fixed", f"wrong {before}, right {now}"))
  ]
  finding, chance = compared(comparison, f"the {model}", against)
  return {
    "heading": f"{MODELS[model]} against {against}" if baseline else MODELS[model],
    "finding": finding,
    "chance": chance,
    "before": "model" if of_candidate else "was",
    "now": "candidate" if of_candidate else "now",
    "verdict": comparison["verdict"],
    "known": baseline is not None and bool(comparison["paired"]),
    "changed": changed,
    "any": any(group["number"] for group in changed),
    "figures": _compared_figures(comparison, before, now, of_candidate) if baseline else [],
  }


def _compared_figures(
  comparison: Mapping[str, Any], before: str, now: str, of_candidate: bool
) -> list[tuple[str, str]]:
  def number(name: str) -> str:
    return _DASH if comparison.get(name) is None else count(comparison[name])

  drop, p_value = comparison["drop"], comparison["p_value"]
  figures = [
    ("images in both", number("paired")),
    (f"right {before}", number("baseline_correct")),
    (f"right {now}", number("correct")),
    ("change in accuracy", _DASH if drop is None else change(drop)),
    ("regressed", number("regressed")),
    ("fixed", number("fixed")),
    (f"McNemar{_S} exact p", _DASH if p_value is None else f"{p_value:.2g}"),
  ]
  if not of_candidate:
    names = [("new, only now", "new"), ("gone, only before", "gone"), ("edited, same name", "edited")]
    figures += [(words, number(name)) for words, name in names]
  return figures


def _trend(trend: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> dict[str, Any] | None:
  """Returns the nights' accuracy, and the recall of the labels that are worst tonight."""
  if not trend:
    return None
  names = [night["night"] for night in trend]
  threshold = metrics.get("gates", {}).get("min_accuracy", {}).get("threshold")
  tonight = trend[-1]["per_label"]
  known = [label for label in metrics["labels"] if tonight.get(label) is not None]
  worst = sorted(known, key=lambda label: tonight[label])[:MAX_TREND_LABELS]
  recalls = {label: [night["per_label"].get(label) for night in trend] for label in worst}
  seen = [rate for rates in recalls.values() for rate in rates if rate is not None]
  limits = (int(100 * min(seen, default=0.99) - 1e-9) / 100, 1.0)
  last = f"{percent(trend[-1]['accuracy'])} on {names[-1]}"
  chart = charts.trend(
    trend, threshold, "trend", f"Accuracy of {len(trend)} nights, {names[0]} to {names[-1]}: {last}."
  )
  return {
    "chart": chart if len(trend) > 1 else None,
    "nights": count(len(trend)),
    "threshold": None if threshold is None else f"{100 * threshold:g}\N{NO-BREAK SPACE}%",
    "rows": [
      {
        "night": night["night"],
        "accuracy": percent(night["accuracy"]),
        "interval": "" if night["accuracy"] is None else interval(night["accuracy_interval_95"]),
        "pictures": count(night["total"]),
        "verdict": night.get("verdict") or "",
        "recalls": [percent(recalls[label][place]) for label in worst],
      }
      for place, night in enumerate(trend)
    ],
    "low": percent(limits[0], 0),
    "all": len(worst) == len(metrics["labels"]),
    "labels": [
      {
        "label": shortened(label),
        "first": percent(next((rate for rate in rates if rate is not None), None)),
        "last": percent(rates[-1]),
        "chart": charts.small_trend(
          names, rates, limits, f"trend-{place}", f"Recall over the nights: {percent(rates[-1])} tonight."
        )
        if len(trend) > 1
        else None,
      }
      for place, (label, rates) in enumerate(recalls.items())
    ],
  }


def _quarantine(metrics: Mapping[str, Any], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
  found = metrics.get("quarantined", {"total": len(rows), "reasons": {}})
  return {
    "total": found["total"],
    "number": number_of_images(found["total"]),
    "reasons": [(reason, count(number)) for reason, number in sorted(found["reasons"].items())],
    "left_out": found["total"] - len(rows),
    "rows": [
      (shortened(name), split, count(int(size)), reason, shortened(detail))
      for name, split, size, reason, detail in rows
    ],
  }


def _made(metrics: Mapping[str, Any], info: RunInfo) -> dict[str, Any]:
  settings, trunk = info.settings, info.trunk
  # A night names each of its models, an evaluation its only one.
  paths = dict(sorted(info.models.items())) or {"model": info.model or ""}
  fingerprints = settings.get("models") or {"model": settings.get("model_fingerprint")}
  stored = metrics.get("bottlenecks")
  facts = [
    ("Images", settings.get("input")),
    ("Splits", ", ".join(metrics.get("splits", ()))),
    *((MODELS[name], path) for name, path in paths.items()),
    *((f"{MODELS[name]}{_S} fingerprint", fingerprint) for name, fingerprint in fingerprints.items()),
    ("Trunk", trunk.get("handle")),
    (f"Trunk{_S} fingerprint", trunk.get("fingerprint")),
    ("Bottlenecks", stored and f"{count(stored['computed'])} computed, {count(stored['reused'])} reused"),
    ("SHA-256 of the predictions", metrics.get("predictions_sha256")),
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
