"""The jobs of `bottlenecks` and `evaluate` as steps of one's own pipeline."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import apache_beam as beam

from beam_retrain.pipelines import bottlenecks, evaluate
from beam_retrain.pipelines.bottlenecks import BottlenecksRequest
from beam_retrain.pipelines.evaluate import EvaluateRequest
from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.transforms.core.arguments import AnyPath, as_path, naming_arguments
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import MODEL, ModelMetrics
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import QUARANTINE_FILE
from beam_retrain.transforms.core.run.config import nearest
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.evaluation.evaluate import JobFigures
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.ledger import parse_quarantine

_Request = TypeVar("_Request", bound=JobRequest)


class Computed(NamedTuple):
  """PCollections of one `Stats`, and of the `Quarantined` images."""

  stats: beam.PCollection
  bad: beam.PCollection


class Evaluated(NamedTuple):
  """PCollections of one `ModelMetrics`, and of the `Quarantined` images."""

  metrics: beam.PCollection
  bad: beam.PCollection


class ComputeBottlenecks(beam.PTransform):
  """Computes and stores the bottlenecks of images, as `beam-retrain bottlenecks`.

  PBegin -> `Computed`: (PCollection of one `Stats`, PCollection[Quarantined]). The output is that of the command:
  `load_bottlenecks`, `beam-retrain train` and `--reuse` read it. A killed job resumes when it is run again.

      stats, bad = pipeline | ComputeBottlenecks("flowers", output="flowers/bottlenecks", trunk="inception_v3")

  The trunk is loaded when the step is made, the output claimed when it is applied. Run one pipeline at a time into an
  output: unlike the command, the step holds no lock. More bad images than `max_bad_fraction` (by default none are
  allowed) end the pipeline with an InputError, after the others are done, as they end the command with exit code 3.

  Args:
    path: images in any format, labelled.
    output: a new or empty folder, or an earlier output; readable by all workers.
    options: flags of `beam-retrain bottlenecks`, such as `trunk`, `precision`, `testing_percentage`, `reuse` and
      `max_bad_fraction`.

  Raises:
    InputError: an option, the input or the trunk cannot be used; when it runs, too many images are bad.
  """

  @naming_arguments(input="path")
  def __init__(self, path: AnyPath, *, output: AnyPath, **options: Any):
    super().__init__()
    self._job = bottlenecks.plan(_request(BottlenecksRequest, {"input": path, "output": output}, options))

  def expand(self, root: beam.pvalue.PBegin) -> Computed:
    if not self._job.claim():
      raise InputError(f"{self._job.source.path} has leaks, see the CSV in {self._job.output}: on_leak is 'fail'.")
    allowed = self._job.request.max_bad_fraction
    stats = self._job.build(root) | "RefuseBad" >> beam.Map(_refuse_bad, self._job.output, allowed)
    # Stats
    return Computed(stats, stats | "ReadBad" >> beam.FlatMap(_read_bad, self._job.output))


class EvaluateClassifier(beam.PTransform):
  """Scores images with a trained model and counts, as `beam-retrain evaluate`.

  PBegin -> `Evaluated`: (PCollection of one `ModelMetrics`, PCollection[Quarantined]). It writes the command's
  `predictions.csv`, `per_label.csv`, `confusion_matrix.csv`, `quarantine.csv` and `stats.json`; gates and the report
  are the command's alone.

      metrics, bad = pipeline | EvaluateClassifier("flowers/model", "flowers", output="flowers/evaluation")

  Args:
    model: what `train` or `run` wrote.
    path: images in any format, or stored bottlenecks of the same trunk.
    output: a new or empty folder, or an earlier output; readable by all workers.
    options: flags of `beam-retrain evaluate`, such as `split`, `precision`, `reuse`.

  Raises:
    InputError: an option, the model or the input cannot be used.
  """

  @naming_arguments(input="path")
  def __init__(self, model: AnyPath, path: AnyPath, *, output: AnyPath, **options: Any):
    super().__init__()
    paths = {"model": model, "input": path, "output": output}
    self._job = evaluate.plan(_request(EvaluateRequest, paths, options))

  def expand(self, root: beam.pvalue.PBegin) -> Evaluated:
    job = self._job
    figures = job.evaluation.build(root, job.evaluation.begin(job.info, job.output, compare=job.compare))
    # str
    bad = figures | "ReadBad" >> beam.FlatMap(_read_bad, job.output)
    return Evaluated(figures | "ReadMetrics" >> beam.Map(_read_metrics), bad)


def _request(kind: type[_Request], paths: Mapping[str, object], options: Mapping[str, object]) -> _Request:
  """Returns a command's request, its options read as on the command line.

  Raises:
    InputError: an option is unknown, or its value cannot be used.
  """
  other = ("given", "typed", "gates", *paths)
  known = [field.name for field in dataclasses.fields(kind) if field.name not in other]
  arguments = [f"--{name}={as_path(path, name)}" for name, path in paths.items()]
  for name, value in options.items():
    if name not in known:
      near = nearest(name, known)
      raise InputError(f"{name} is no option here: {f'the nearest is {near}' if near else 'leave it out'}.")
    if name == "beam_options":
      arguments += map(str, value if isinstance(value, tuple | list) else [value])
    elif value is True:
      arguments.append(f"--{name}")
    elif value is not None and value is not False:
      arguments += [f"--{name}={each}" for each in (value if isinstance(value, tuple | list) else [value])]
  return kind.parse(arguments)


def _refuse_bad(stats: Stats, output: str, allowed: float) -> Stats:
  if stats.bad_fraction > allowed:
    with naming_arguments():
      raise InputError(f"{stats.describe_bad(files.join(output, QUARANTINE_FILE))} and run the pipeline again.")
  return stats


def _read_bad(_: object, output: str) -> Iterator[Quarantined]:
  yield from parse_quarantine(files.join(output, QUARANTINE_FILE))


def _read_metrics(path: str) -> ModelMetrics:
  return JobFigures.from_json(files.read_bytes(path)).models[MODEL]
