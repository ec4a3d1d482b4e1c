"""The report: one self-contained HTML file of an evaluation or a night.

It loads nothing, and all of it can be read without its script, which sorts, filters and turns pages. Its content
security policy forbids all other scripts and any request, so that a file name or label that escaped the escaping would
do nothing. Jinja2 and matplotlib are imported with the first report.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_retrain.reporting import charts, html_tables, wording
from beam_retrain.reporting.gates import GATES, NOT_PUBLISHED, UNFINISHED, gate_value, verdict_in_words
from beam_retrain.reporting.html_tables import LabelMistakes, Matrix, Picture, Thumbnails
from beam_retrain.reporting.text_tables import comparisons
from beam_retrain.transforms.core.metrics.figures import (
  CANDIDATE,
  MISSED,
  MODEL,
  NONE_SET,
  PASSED,
  ComparisonResult,
  Metrics,
  ModelMetrics,
  QuarantineCounts,
  ShownImage,
  TrendPoint,
  alike,
)
from beam_retrain.transforms.core.metrics.training_log import TrainingLog
from beam_retrain.transforms.core.metrics.wording import places_of_interval
from beam_retrain.transforms.core.printing import printable
from beam_retrain.transforms.core.run.run_info import RunInfo

if TYPE_CHECKING:
  import jinja2
  from markupsafe import Markup

  from beam_retrain.transforms.core.metrics.embedding_map import EmbeddingMap  # not at run time: it loads numpy

MAX_TREND_LABELS = 12
# Each state has a symbol and a word, never a colour alone.
_SYMBOLS = dict.fromkeys((MISSED, NOT_PUBLISHED, UNFINISHED), "\N{BALLOT X}")
_SYMBOLS |= {PASSED: "\N{CHECK MARK}", NONE_SET: "\N{WHITE CIRCLE}"}
_MAX_SETTING = 300  # characters


@dataclasses.dataclass(frozen=True)
class Report:
  """What a report shows; what `metrics` does not have is left out."""

  metrics: Metrics
  images: Mapping[str, Sequence[ShownImage]]  # `mistakes`, `suspicious`, `right`, `regressed`, `fixed` -> images
  quarantined: Sequence[Sequence[Any]]  # file_name, split, size_bytes, reason, detail; `metrics` has the total
  info: RunInfo
  trend: Sequence[TrendPoint]  # the oldest night first, tonight last; empty: no trend
  title: str
  date: str = ""  # `YYYY-MM-DD`
  training: Mapping[str, TrainingLog] = dataclasses.field(default_factory=dict)  # by model
  map: EmbeddingMap | None = None  # of the model's bottlenecks

  def images_of(self, model: str, kind: str) -> list[ShownImage]:
    return [image for image in self.images.get(kind, ()) if image.model == model]


def render_report(report: Report) -> str:
  """Returns the report as HTML; equal contents give equal text."""
  from markupsafe import Markup

  from beam_retrain.transforms.core.records.leaks import describe  # loads numpy

  metrics, thumbnails, environment = report.metrics, Thumbnails(), _environment()
  details = [_details(report, name, model, thumbnails) for name, model in metrics.models.items()]
  state, sentence = wording.headline(metrics)
  nights, on_unseen = alike(report.trend)
  counts = report.training[MODEL].label_counts if MODEL in report.training else {}
  script = Markup((resources.files("beam_retrain.reporting") / "templates" / "report.js").read_text("utf-8"))
  return environment.get_template("report.html").render(
    report=report,
    metrics=metrics,
    models=metrics.models,
    several=len(metrics.models) > 1,
    state=state,
    verdict=verdict_in_words(state).capitalize(),
    sentence=sentence,
    gates=[] if metrics.verdict == NONE_SET else list(metrics.gates()),
    comparisons=list(_comparisons(report, thumbnails)),
    nights=nights,
    on_unseen=on_unseen,
    recalls=_lowest_recalls(nights),
    labels=html_tables.label_table(metrics.model, metrics.candidate, counts),
    details=details,
    on_map=html_tables.places_of(report.map, metrics.model.labels, thumbnails) if report.map else [],
    logs={name: log for name, log in report.training.items() if log.best and len(log.rounds) > 1},
    leaks=describe(metrics.leaks or {}),
    quarantine=metrics.model.quarantined or QuarantineCounts(len(report.quarantined), {}),
    script=script,
    script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
  )


@functools.cache  # to compile the templates takes longer than to fill them in
def _environment() -> jinja2.Environment:
  import jinja2

  environment = escaping_environment(jinja2.PackageLoader("beam_retrain.reporting", "templates"))
  environment.filters |= {
    "breakable": _breakable,
    "change": wording.change,
    "counted": wording.counted,
    "interval": wording.interval,
    "number": wording.number,
    "of_hundred": lambda rate: round(100 * rate, 2),
    "percent": wording.percent,
    "short_json": _short_json,
    "shortened": wording.shortened,
    "spaced": wording.spaced,
  }
  environment.globals |= {
    "GATES": GATES,
    "SYMBOLS": _SYMBOLS,
    "calibrated": wording.calibrated,
    "charts": charts,
    "corrected": wording.corrected,
    "gate_value": gate_value,
    "places_for": wording.places_for,
    "places_of_interval": places_of_interval,
    "tables": html_tables,
    "trained_on": wording.trained_on,
  }
  return environment


def escaping_environment(loader: jinja2.BaseLoader) -> jinja2.Environment:
  """Returns an environment in which no text is markup."""
  import jinja2

  return jinja2.Environment(
    loader=loader,
    autoescape=True,
    finalize=lambda value: printable(value) if type(value) is str else value,  # Markup is another type
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )


def _breakable(text: str) -> Markup:
  """Returns a shortened name that may break within words, after `-_/`."""
  from markupsafe import Markup

  return Markup("<wbr>").join(re.split(r"(?<=[-_/\\])(?=.)", printable(wording.shortened(text))))


def _short_json(value: Any) -> str:
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= _MAX_SETTING else f"{text[:_MAX_SETTING]}\N{HORIZONTAL ELLIPSIS}"


class _Details(NamedTuple):
  name: str
  model: ModelMetrics
  matrix: Matrix
  by_label: list[LabelMistakes]  # images, right and wrong
  suspicious: list[Picture] | None  # None if there are such labels, but no image of them


def _details(report: Report, name: str, model: ModelMetrics, thumbnails: Thumbnails) -> _Details:
  images, right = report.images_of(name, "mistakes"), report.images_of(name, "right")
  matrix = html_tables.confusion(model, name[0], linked=bool(images) or model.total == model.correct)
  by_label = html_tables.images_by_label(images, right, model, matrix, thumbnails)
  suspicious = report.images_of(name, "suspicious")  # in the order of their ranks
  unknown = model.suspicious is None or (model.suspicious.images and not suspicious)
  return _Details(name, model, matrix, by_label, None if unknown else thumbnails.fit(suspicious))


class _Comparison(NamedTuple):
  name: str
  of_models: bool  # whether a candidate is compared with the model
  against: str
  result: ComparisonResult
  finding: str
  chance: str
  changed: list[tuple[str, int, list[Picture]]]  # `regressed` or `fixed`, number, images


def _comparisons(report: Report, thumbnails: Thumbnails) -> Iterator[_Comparison]:
  for name, model in report.metrics.models.items():
    for to, result in comparisons(name, model):
      # A candidate is compared with the model, whose own baseline does not matter here.
      of_models = name == CANDIDATE and result is model.comparison
      against = "the model tonight" if of_models else wording.shortened(to)
      changed = [
        (kind, number or 0, thumbnails.fit(report.images_of(name, kind)))
        for kind, number in (("regressed", result.regressed), ("fixed", result.fixed))
        if result is model.comparison and (result.regressed or result.fixed)
      ]
      yield _Comparison(name, of_models, against, result, *wording.compared(result, f"the {name}", against), changed)


def _lowest_recalls(nights: Sequence[TrendPoint]) -> dict[str, list[float | None]]:
  """Returns label -> recall per night, of tonight's lowest recalls."""
  tonight = {label: rate for label, rate in nights[-1].recalls.items() if rate is not None} if nights else {}
  lowest = sorted(tonight, key=lambda label: tonight[label])[:MAX_TREND_LABELS]
  return {label: [night.recalls.get(label) for night in nights] for label in lowest}
