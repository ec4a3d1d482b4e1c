"""`beam-retrain run`: the whole chain, one folder per stage."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from beam_retrain.pipelines import bottlenecks, convert, datasets, evaluate, train
from beam_retrain.pipelines.convert import ConvertRequest
from beam_retrain.pipelines.evaluate import EvaluateRequest
from beam_retrain.pipelines.jobs.locks import holds_output
from beam_retrain.pipelines.jobs.runner import run_command
from beam_retrain.pipelines.models.photos import say_trunk_for_photos
from beam_retrain.pipelines.models.trunk_sources import BUNDLED
from beam_retrain.pipelines.options.request import JobRequest, check_paths
from beam_retrain.pipelines.options.stage_flags import Offered, add_stage_flags, names_here
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
from beam_retrain.transforms.core.errors import flag_names
from beam_retrain.transforms.core.log_file import keep_in
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.records.schema import CONFIG_FILE
from beam_retrain.transforms.core.run.config import to_toml
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.request import NO_FLAG, Request
from beam_retrain.transforms.core.run.run_info import without_secrets
from beam_retrain.transforms.core.runtimes.variant import AUTO
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


_IDX = ("classes", "class_names", "transpose")
# What `run` decides itself. Of two stages with a flag, the first one's help is shown.
_STAGES = (
  Offered(BottlenecksRequest, ("input", "output", "retry_from", *_IDX)),
  Offered(ConvertRequest, ("input", "output")),
  Offered(TrainRequest, ("input", "output", "validation_percentage", "assert_accuracy_at_least")),
  Offered(EvaluateRequest, ("model", "input", "output", "reuse", "precision", "runtime", "max_bad_fraction", *_IDX)),
)
# In the order in which 0.4 digested them, so that its outputs are recognised.
_FIRST = ("input", *_IDX, "trunk", "trunk_weights", "precision", "runtime", *SPLIT_PERCENTAGES, "preset")
_DECIDE_NOTHING = ("reuse", "trunk_threads", "logging_verbosity", "max_bad_fraction")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRequest(JobRequest):
  """The flags of `run`: its own, and those of its stages.

  Attributes:
    stage_flags: attribute in the namespace -> value, of those that were given.
  """

  command: ClassVar[str] = "run"
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EXAMPLE

  data: str = "digits"
  output: str
  stage_flags: Mapping[str, object] = dataclasses.field(default_factory=dict, metadata=NO_FLAG)

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
      "--data",
      metavar="D",
      help="digits (scikit-learn's 1,797 real handwritten digits, offline), mnist (70,000, downloaded), a folder of IDX"
      " files or of class folders, or a CSV manifest, file_name,label[,split] (default: digits)",
    )
    parser.add_argument("--output", type=_local_folder, required=True, metavar="DIR", help="folder for everything")
    add_stage_flags(parser, _STAGES)

  @classmethod
  def _parse_flags(
    cls, parser: argparse.ArgumentParser, argv: Sequence[str], flags: argparse.Namespace
  ) -> argparse.Namespace:
    names = {name for of_stage in names_here(_STAGES).values() for name in of_stage.values()}
    unset: dict[str, object] = {name: [] if name in ("reuse", "gates") else object() for name in names}
    parsed = super()._parse_flags(parser, argv, argparse.Namespace(**unset, **vars(flags)))
    given = {name: vars(parsed)[name] for name in names if vars(parsed)[name] is not unset[name]}
    parsed.stage_flags = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return parsed

  def folder(self, stage: str) -> str:
    return str(Path(self.output) / stage)

  def flags_of(self, cls: type[Request]) -> dict[str, object]:
    """Returns the given flags of a stage, by its fields."""
    here = names_here(_STAGES)[cls]
    return {field: self.stage_flags[name] for field, name in here.items() if name in self.stage_flags}

  def convert(self, data: str, classes: int | None) -> Stage:
    return self._stage(ConvertRequest, convert.execute, input=data, classes=classes)

  def bottlenecks(self, images: str) -> Stage:
    return self._stage(BottlenecksRequest, bottlenecks.execute, input=images, trunk=BUNDLED)

  def train(self) -> Stage:
    return self._stage(TrainRequest, train.execute, input=self.folder("bottlenecks"))

  def evaluate(self, images: str) -> Stage:
    # Bad images were judged for the whole data set, by the stages before.
    model = {"model": self.folder("train"), "split": "testing", "max_bad_fraction": 1.0}
    return self._stage(EvaluateRequest, evaluate.execute, input=images, **model)

  def _stage(self, cls: type[RequestT], execute: Callable[[RequestT], int], **values: object) -> Stage:
    """Returns a stage in its folder; given flags replace `values`."""
    values = {"output": self.folder(cls.command), **values, **self.flags_of(cls)}
    if issubclass(cls, JobRequest):
      values["beam_options"] = self.beam_options
    values |= {name: None for name in ("precision", "runtime") if values.get(name) == AUTO}
    names = [name for name in values if name not in (*_FIRST, *_DECIDE_NOTHING, "output", "beam_options")]
    return Stage(make_request(cls, **values), execute, (*_FIRST, *sorted(names)))


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
  # Unusable flags and images fail before a stage is announced.
  make_request(TrainRequest, input=data, output=request.output, **request.flags_of(TrainRequest)).validate()
  idx = make_request(ConvertRequest, input=data, output=request.output, **request.flags_of(ConvertRequest))
  source = find_source(
    files.absolute(data),
    idx.classes,
    retrain_names="retrain_names" in request.stage_flags,
    class_names=idx.class_names,
    transpose=idx.transpose,
  )
  if request.stage_flags.get("trunk", BUNDLED) == BUNDLED:
    say_trunk_for_photos(source, (request.command, *request.typed))
  keep_in(request.output, files)
  files.write_text(request.folder(CONFIG_FILE), to_toml(request.command, without_secrets(request.typed)))
  state = digest_of_images(data)
  if isinstance(source, IdxSource):
    images = request.folder("convert")
    if idx.class_names:
      state = json.dumps([state, digest_of_files(idx.class_names)])
    state = chain.keep_or_run(request.convert(data, count_classes(source.labels)), after=state)
  stage = request.bottlenecks(images)
  trunk, weights = (vars(stage.request)[name] for name in ("trunk", "trunk_weights"))
  with flag_names({"input": "data"}):
    state = chain.keep_or_run(stage, after=json.dumps([state, digests_of_trunk(trunk, weights)]))
  chain.keep_or_run(request.train(), after=state)
  # Evaluation always runs: it prints the summary, and its gates decide the exit code.
  was_done = chain.code == ExitCode.DONE
  chain.run(request.evaluate(images), has_result=True)
  if was_done and chain.code in (ExitCode.DONE, ExitCode.GATE_MISSED):
    names = ("data", "convert", "bottlenecks", "train", "evaluate")
    stages = [name for name in names if os.path.isdir(request.folder(name))]
    shown = ", ".join(stages).replace("train", "train (the model: train/saved_model)")
    say(f"everything is in {request.output}: {shown}")
    evaluate.say_ends(request.folder("evaluate"), request.output, images)
  return chain.code


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
