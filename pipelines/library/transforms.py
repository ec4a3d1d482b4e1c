"""The jobs of `bottlenecks` and `evaluate` as steps of one's own pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam

from beam_retrain.pipelines import bottlenecks, evaluate
from beam_retrain.pipelines.bottlenecks import BottlenecksRequest
from beam_retrain.pipelines.evaluate import EvaluateRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import MODEL, ModelMetrics
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import QUARANTINE_FILE
from beam_retrain.transforms.evaluation.evaluate import JobFigures
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.ledger import parse_quarantine

Path = str | os.PathLike[str]


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
  output: unlike the command, the step holds no lock.

  Args:
    path: images in any format, labelled.
    output: a new or empty folder, or an earlier output; readable by all workers.
    options: flags of `beam-retrain bottlenecks`, such as `trunk`, `precision`, `testing_percentage`, `reuse`.

  Raises:
    InputError: an option, the input or the trunk cannot be used.
  """

  def __init__(self, path: Path, *, output: Path, **options: Any):
    super().__init__()
    self._job = bottlenecks.plan(BottlenecksRequest(input=os.fspath(path), output=os.fspath(output), **options))

  def expand(self, root: beam.pvalue.PBegin) -> Computed:
    if not self._job.claim():
      raise InputError(f"{self._job.source.path} has leaks, see the CSV in {self._job.output}: on_leak is 'fail'.")
    stats = self._job.build(root)
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

  def __init__(self, model: Path, path: Path, *, output: Path, **options: Any):
    super().__init__()
    self._job = evaluate.plan(
      EvaluateRequest(model=os.fspath(model), input=os.fspath(path), output=os.fspath(output), **options)
    )

  def expand(self, root: beam.pvalue.PBegin) -> Evaluated:
    job = self._job
    figures = job.evaluation.build(root, job.evaluation.begin(job.info, job.output, compare=job.compare))
    # str
    bad = figures | "ReadBad" >> beam.FlatMap(_read_bad, job.output)
    return Evaluated(figures | "ReadMetrics" >> beam.Map(_read_metrics), bad)


def _read_bad(_: object, output: str) -> Iterator[Quarantined]:
  yield from parse_quarantine(files.join(output, QUARANTINE_FILE))


def _read_metrics(path: str) -> ModelMetrics:
  return JobFigures.from_json(files.read_bytes(path)).models[MODEL]
