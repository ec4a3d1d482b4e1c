"""`beam-retrain run`: the whole chain, one folder per stage."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from beam_retrain.pipelines import bottlenecks, convert, datasets, evaluate, train
from beam_retrain.pipelines.convert import ConvertRequest
from beam_retrain.pipelines.evaluate import EvaluateRequest
from beam_retrain.pipelines.jobs.locks import holds_output
from beam_retrain.pipelines.jobs.runner import run_command
from beam_retrain.pipelines.models.trunk_sources import BUNDLED
from beam_retrain.pipelines.options.flags import (
  AUTO,
  IdxFlags,
  add_classes,
  add_idx_flags,
  add_precision_flags,
  add_split_percentages,
)
from beam_retrain.pipelines.options.request import JobRequest, check_paths
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from beam_retrain.pipelines.stages import (
  SPLIT_PERCENTAGES,
  Chain,
  RequestT,
  Stage,
  digest_of_files,
  digest_of_images,
  digests_of_trunk,
  make_request,
)
from beam_retrain.pipelines.train import TrainRequest
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.flags import add_max_bad_fraction, fraction
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.idx import IdxSource, count_classes

_DESCRIPTION = """\
Trains a model on labelled images and evaluates it:

  OUTPUT/data          the IDX files of --data digits or mnist
  OUTPUT/convert       images in class folders, and records (IDX data only)
  OUTPUT/bottlenecks   one vector per image, and the transform graph
  OUTPUT/train         the exported model, retrained_labels.txt, retrained_graph.pb, TensorBoard logs
  OUTPUT/evaluate      predictions.csv, per_label.csv, confusion_matrix.csv, metrics.json

A stage that is finished and unchanged is kept; a killed run resumes."""

_EXAMPLE = """\
example
  beam-retrain run --data digits --trunk bundled --output output/digits
  beam-retrain run --data flower_photos --trunk inception_v3 --output output/flowers

Any Beam option may follow, and is passed to every stage that is a Beam job."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRequest(JobRequest, IdxFlags):
  """The flags of `run`."""

  command: ClassVar[str] = "run"
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EXAMPLE

  data: str = "digits"
  trunk: str = BUNDLED
  trunk_weights: str | None = None
  precision: str = AUTO
  runtime: str = AUTO
  classes: int | None = None
  testing_percentage: float = 10.0
  validation_percentage: float = 10.0
  preset: str | None = None
  min_accuracy: float | None = None
  output: str
  max_bad_fraction: float = 0.0

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
      "--data",
      metavar="D",
      help="digits (scikit-learn's 1,797 real handwritten digits, offline), mnist (70,000, downloaded), a folder of IDX"
      " files or of class folders, or a CSV manifest, file_name,label[,split] (default: digits)",
    )
    parser.add_argument("--trunk", help="see `beam-retrain bottlenecks --help` (default: bundled)")
    parser.add_argument("--trunk_weights", metavar="FILE", help="local weights of a keras: trunk")
    add_precision_flags(parser)
    add_classes(parser)
    add_idx_flags(parser)
    add_split_percentages(parser)
    parser.add_argument("--preset", choices=("adam", "retrain"), help="see `beam-retrain train --help`")
    parser.add_argument(
      "--min_accuracy", type=fraction, metavar="A", help="exit code 1 if the testing accuracy, 0..1, is below this"
    )
    parser.add_argument("--output", type=_local_folder, required=True, metavar="DIR", help="folder for everything")
    add_max_bad_fraction(parser)

  def folder(self, stage: str) -> str:
    return str(Path(self.output) / stage)

  def convert(self, data: str, classes: int | None) -> Stage:
    decisive = {"input": data, "classes": self.classes or classes, **self.idx_settings()}
    return self._stage(ConvertRequest, convert.execute, decisive)

  def bottlenecks(self, images: str) -> Stage:
    decisive = {
      "input": images,
      "trunk": self.trunk,
      "trunk_weights": self.trunk_weights,
      "precision": self.precision if self.precision != AUTO else None,
      "runtime": self.runtime if self.runtime != AUTO else None,
      **{name: getattr(self, name) for name in SPLIT_PERCENTAGES if name in self.given},
    }
    return self._stage(BottlenecksRequest, bottlenecks.execute, decisive)

  def train(self) -> Stage:
    return self._stage(TrainRequest, train.execute, {"input": self.folder("bottlenecks"), "preset": self.preset})

  def evaluate(self, images: str) -> Stage:
    gates = None if self.min_accuracy is None else (("min_accuracy", self.min_accuracy),)
    others: dict[str, object] = {"input": images, "model": self.folder("train"), "split": "testing", "gates": gates}
    others["max_bad_fraction"] = 1.0  # judged for the whole data set, by the stages before
    return self._stage(EvaluateRequest, evaluate.execute, {}, others)

  def _stage(
    self,
    cls: type[RequestT],
    execute: Callable[[RequestT], int],
    decisive: Mapping[str, object],
    others: Mapping[str, object] = MappingProxyType({}),
  ) -> Stage:
    """Returns a stage in the folder of its command; `decisive`: see `Stage`."""
    values: dict[str, object] = {"output": self.folder(cls.command)}
    if issubclass(cls, JobRequest):
      values |= {"max_bad_fraction": self.max_bad_fraction, "beam_options": self.beam_options}
    values |= {**decisive, **others}
    return Stage(make_request(cls, **values), execute, tuple(decisive))


make_parser = RunRequest.make_parser


def _local_folder(text: str) -> str:
  if not files.is_local(text):
    raise argparse.ArgumentTypeError(
      f"{text} is remote, where this command cannot keep its state; run the stages one by one, which can write there"
    )
  return text


def run(argv: Sequence[str]) -> int:
  return execute(RunRequest.parse(argv))


@holds_output
def execute(request: RunRequest) -> int:
  """Runs the chain; returns the first exit code that is not 0."""
  check_paths(request.pipeline_options(), request.data)
  chain = Chain(Path(request.output), "run.json")
  images = data = datasets.resolve(request.data, request.folder("data"))
  # Unusable images fail before a stage is announced.
  source = find_source(
    files.absolute(data), request.classes, class_names=request.class_names, transpose=request.transpose
  )
  state = digest_of_images(data)
  if isinstance(source, IdxSource):
    images = request.folder("convert")
    if request.class_names:
      state = json.dumps([state, digest_of_files(request.class_names)])
    state = chain.keep_or_run(request.convert(data, count_classes(source.labels)), after=state)
  after = json.dumps([state, digests_of_trunk(request.trunk, request.trunk_weights)])
  state = chain.keep_or_run(request.bottlenecks(images), after)
  chain.keep_or_run(request.train(), after=state)
  # Evaluation always runs: it prints the summary, and its gates decide the exit code.
  chain.run(request.evaluate(images))
  if chain.code in (ExitCode.DONE, ExitCode.GATE_MISSED):
    names = ("data", "convert", "bottlenecks", "train", "evaluate")
    stages = [name for name in names if os.path.isdir(request.folder(name))]
    shown = ", ".join(stages).replace("train", "train (the model: train/saved_model)")
    print("", f"everything is in {request.output}: {shown}", sep="\n")
  return chain.code


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
