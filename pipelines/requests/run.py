"""The flags of `run`: its own, and those of its stages."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.pipelines.options.stage_flags import (
  SPLIT_PERCENTAGES,
  Offered,
  Stage,
  add_stage_flags,
  make_request,
  names_here,
)
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from beam_retrain.pipelines.requests.convert import ConvertRequest
from beam_retrain.pipelines.requests.evaluation import EvaluateRequest
from beam_retrain.trainer.request import TrainRequest
from beam_retrain.transforms.core.run.flags import option
from beam_retrain.transforms.core.run.request import NO_FLAG, Request
from beam_retrain.transforms.core.runtimes.trunk_info import BUNDLED
from beam_retrain.transforms.core.runtimes.variant import AUTO
from beam_retrain.transforms.core.system import local_files

_DESCRIPTION = """\
Trains a model on labelled images and evaluates it:

  OUTPUT/data          the IDX files of --data digits or mnist
  OUTPUT/convert       images in class folders, and records (IDX data only)
  OUTPUT/bottlenecks   one vector per image, and the transform graph
  OUTPUT/train         the exported model, retrained_labels.txt, retrained_graph.pb, TensorBoard logs
  OUTPUT/evaluate      predictions.csv, per_label.csv, confusion_matrix.csv, metrics.json

A stage that is finished and unchanged is kept; only new images go through the trunk; a killed run resumes."""

_EXAMPLE = """\
example
  beam-retrain run --data digits --trunk bundled --output output/digits
  beam-retrain run --data flower_photos --trunk inception_v3 --output output/flowers

Any Beam option may follow, and is passed to every stage that is a Beam job."""


_IDX = ("classes", "class_names", "transpose")
# What `run` decides itself. Of two stages with a flag, the first one's help is shown.
_STAGES = (
  Offered(BottlenecksRequest, ("input", "output", "retry_from", *_IDX)),
  Offered(ConvertRequest, ("input", "output", "corrections")),
  Offered(TrainRequest, ("input", "output", "validation_percentage", "assert_accuracy_at_least")),
  Offered(EvaluateRequest, ("model", "input", "output", "reuse", "precision", "runtime", "max_bad_fraction", *_IDX)),
)
# In the order in which 0.4 digested them, so that its outputs are recognised.
_FIRST = ("input", *_IDX, "trunk", "trunk_weights", "precision", "runtime", *SPLIT_PERCENTAGES, "preset")
_DECIDE_NOTHING = ("corrections", "reuse", "trunk_threads", "logging_verbosity", "max_bad_fraction")


def _local_folder(text: str) -> str:
  if not local_files.is_local(text):
    raise argparse.ArgumentTypeError(
      f"{text} is remote, where this command cannot keep its state; run the stages one by one, which can write there"
    )
  return text


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRequest(JobRequest):
  command: ClassVar[str] = "run"
  module: ClassVar[str] = "beam_retrain.pipelines.run"
  description: ClassVar[str] = _DESCRIPTION
  epilog: ClassVar[str] = _EXAMPLE

  data: str = option(
    "digits",
    "digits (scikit-learn's 1,797 real handwritten digits, offline), mnist (70,000, downloaded), a folder of IDX"
    " files or of class folders, or a CSV manifest, file_name,label[,split] (default: digits)",
    metavar="D",
  )
  output: str = option(help="folder for everything", type=_local_folder, metavar="DIR")
  # Attribute in the namespace -> value, of the stages' flags that were given.
  stage_flags: Mapping[str, object] = dataclasses.field(default_factory=dict, metadata=NO_FLAG)

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    super().add_flags(parser)
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
    return self._stage(ConvertRequest, input=data, classes=classes)

  def bottlenecks(self, images: str) -> Stage:
    return self._stage(BottlenecksRequest, input=images, trunk=BUNDLED)

  def train(self) -> Stage:
    return self._stage(TrainRequest, input=self.folder("bottlenecks"))

  def evaluate(self, images: str) -> Stage:
    # Bad images were judged for the whole data set, by the stages before.
    model = {"model": self.folder("train"), "split": "testing", "max_bad_fraction": 1.0}
    stored = {"reuse": (self.folder("bottlenecks"),)} if self.stage_flags.get("label_errors") else {}
    return self._stage(EvaluateRequest, input=images, **model, **stored)

  def _stage(self, cls: type[Request], **values: object) -> Stage:
    """Returns a stage in its folder; given flags replace `values`."""
    values = {"output": self.folder(cls.command), **values, **self.flags_of(cls)}
    if issubclass(cls, JobRequest):
      values["beam_options"] = self.beam_options
    values |= {name: None for name in ("precision", "runtime") if values.get(name) == AUTO}
    names = [name for name in values if name not in (*_FIRST, *_DECIDE_NOTHING, "output", "beam_options")]
    return Stage(make_request(cls, **values), (*_FIRST, *sorted(names)))
