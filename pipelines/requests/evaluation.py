"""The flags of `evaluate` and `reevaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from beam_retrain.pipelines.options.flags import (
  IdxFlags,
  batch_size_option,
  corrections_option,
  precision_option,
  runtime_option,
)
from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.reporting.gates import GATES
from beam_retrain.transforms.core.records.schema import STORES_FOLDER
from beam_retrain.transforms.core.run.argparse_internals import FlagGroup
from beam_retrain.transforms.core.run.flags import (
  fraction,
  max_bad_option,
  max_pixels_option,
  option,
  positive_int,
  trunk_threads_option,
)
from beam_retrain.transforms.core.runtimes.trunk_info import BATCH_SIZE, BOTTLENECKS_BATCH_SIZE
from beam_retrain.transforms.core.runtimes.variant import BOUNDS_IN_WORDS

CHECKED = textwrap.fill(
  "The figures are held against the exported model (float32, by TensorFlow) on a sample of 64 images: the smallest"
  " cosine of an image's bottlenecks, and the share of equal predictions, must be at least"
  f" {BOUNDS_IN_WORDS}. Else the exit code is 2, whatever the gates: they cannot be judged. Stored bottlenecks come"
  " without images: generated ones are used.",
  118,
)
"""In the description of both commands."""

SPLITS = ("auto", "testing", "all")  # values of `--split`

_IN_BOTH = (
  *("split", "reuse", "manifest", "min_slice_size", "gates", "class_names", "transpose", "batch_size", "max_pixels"),
  *("trunk_threads", "precision", "runtime", "corrections", "max_bad_fraction"),
)
"""Flags of both commands, in the order of their help."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRequest(JobRequest, IdxFlags):
  paths: ClassVar[tuple[str, ...]] = ("model", "input", "reuse", "manifest", "class_names", "corrections")

  compares: ClassVar[bool] = False  # whether it has the gates that need something to compare with

  model: str
  input: str
  split: str = "auto"
  reuse: tuple[str, ...] = ()
  manifest: str | None = option(
    None,
    "also evaluate by slice: a CSV with a column file_name, the image's key as in predictions.csv, and others"
    " (writer, device, ...), each of whose values is a slice",
    metavar="CSV",
  )
  min_slice_size: int = option(
    30, "merge slices of fewer images (default: %(default)d)", type=positive_int, metavar="N"
  )
  # (gate, threshold 0..1) of those that are set; each gate has its own flag.
  gates: tuple[tuple[str, float], ...] = option(())
  batch_size: int | None = None
  trunk_threads: int | None = trunk_threads_option()
  corrections: str | None = corrections_option()
  max_pixels: int = max_pixels_option()
  precision: str = precision_option()
  runtime: str = runtime_option()
  max_bad_fraction: float = max_bad_option()

  @classmethod
  def _add_flag(cls, group: FlagGroup, field: dataclasses.Field) -> None:
    if field.name != "gates":
      super()._add_flag(group, field)
      return
    for gate in GATES.values():
      if gate.has_flag and (cls.compares or not gate.needs_comparison):
        group.add_argument(
          f"--{gate.name}",
          dest="gates",
          action=_SetGate,
          default=(),
          type=fraction,
          metavar=gate.metavar,
          help=gate.help,
        )

  def _arguments(self, field: dataclasses.Field) -> Iterator[str]:
    if field.name == "gates":
      yield from (f"--{name}={threshold}" for name, threshold in self.gates)
    else:
      yield from super()._arguments(field)


class _SetGate(argparse.Action):
  def __call__(
    self,
    parser: argparse.ArgumentParser,
    namespace: argparse.Namespace,
    values: str | Sequence[Any] | None,
    option_string: str | None = None,
  ) -> None:
    (flag_name,) = self.option_strings
    setattr(namespace, self.dest, [*getattr(namespace, self.dest, ()), (flag_name.removeprefix("--"), values)])


_EVALUATE = f"""\
Predicts the label of every image and counts the correct predictions per label. The first accuracy, which the gates
judge, is on images that the model was not trained on (compared by their bytes); the accuracy on all stands beside it.

{CHECKED}

writes   OUTPUT/report.html (everything in one file), predictions.csv (the article's columns first),
         per_label.csv, confusion_matrix.csv, suspicious_labels.csv, metrics.json,
         quarantine.csv, stats.json, info.json and, last, COMPLETED

A killed run is resumed by the same command: finished shards are kept."""

_EVALUATE_EXAMPLE = """\
example:
  beam-retrain evaluate --model flowers/model --input flower_photos --split testing --output flowers/evaluation

Any Beam option may follow, for example --runner=FlinkRunner, or
  --direct_running_mode=multi_processing --direct_num_workers=2   for two processes on this machine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateRequest(EvaluationRequest):
  command: ClassVar[str] = "evaluate"
  module: ClassVar[str] = "beam_retrain.pipelines.evaluate"
  description: ClassVar[str] = _EVALUATE
  epilog: ClassVar[str] = _EVALUATE_EXAMPLE
  paths: ClassVar[tuple[str, ...]] = (*EvaluationRequest.paths, "output")

  first: ClassVar[tuple[str, ...]] = ("model", "input", "output", *_IN_BOTH)

  model: str = option(help="output of `train` or `run`", metavar="DIR")
  input: str = option(
    help="images: any input of `bottlenecks`; or the output of `bottlenecks`, which needs the model's head only",
    metavar="DIR",
  )
  split: str = option(
    "auto",
    "auto (default): the testing images if the input has splits (IDX files, folders training/ and"
    " testing/, records, bottlenecks), else all images. testing: of class folders or a manifest without splits, the"
    " images whose names hash into the model's testing set. all: the training images too",
    choices=SPLITS,
  )
  reuse: tuple[str, ...] = option(
    (),
    "reuse the bottlenecks in DIR (output of `bottlenecks`, an evaluation with --reuse, or a night of"
    " `reevaluate`), run the trunk only on the other images, and keep all bottlenecks in"
    f" OUTPUT/{STORES_FOLDER}; may be repeated",
    metavar="DIR",
  )
  batch_size: int | None = batch_size_option(
    f"{BATCH_SIZE}, or fewer if the trunk's input is large; {BOTTLENECKS_BATCH_SIZE} for stored bottlenecks"
  )
  output: str = option(help="a new or empty folder, or an earlier output", metavar="DIR")
  label_errors: bool = option(
    False,
    "also look for wrong labels, by heads that are trained without the image (confident learning) and by the"
    " nearest images, and for near-duplicates; needs stored bottlenecks: as `evaluate --input`, by --reuse, or"
    " those of a `run`",
  )


_REEVALUATE = f"""\
Evaluates a model every night and compares it with an earlier night: is it still as good, on the same images and on
new ones, and would a candidate be better? Only new and changed images go through the trunk; the bottlenecks of the
others are reused. The accuracy that comes first, and that gates judge, is that on the images which the model was not
trained on, told by their bytes; that on all is beside it.

{CHECKED}

writes   HISTORY/DATE/report.html (everything in one file), predictions.csv, per_label.csv,
         regressed.csv (right in the baseline, wrong now), fixed.csv, new.csv, gone.csv,
         suspicious_labels.csv, leaks.csv (the same image under two labels), metrics.json, junit.xml, metrics.prom (for
         Prometheus), ..., and candidate/ for the candidate

A night appears in HISTORY when it is finished. A rerun of the same night replaces it; a killed run is resumed. The
model is compared with the last night that passed its gates, the candidate with tonight's model, and both with the
reference, if one is given: nights that get a little worse each time pass --max_drop, but not against a reference."""

_REEVALUATE_EXAMPLE = """\
example:
  beam-retrain reevaluate --model flowers/model --input flower_photos --history nights --min_accuracy 0.9

exit codes: 0 done, 1 a gate was missed, 2 wrong usage or the job failed, 3 more bad inputs than allowed (the night is
not published). Any Beam option may follow."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReevaluateRequest(EvaluationRequest):
  command: ClassVar[str] = "reevaluate"
  module: ClassVar[str] = "beam_retrain.pipelines.reevaluate.command"
  description: ClassVar[str] = _REEVALUATE
  epilog: ClassVar[str] = _REEVALUATE_EXAMPLE
  paths: ClassVar[tuple[str, ...]] = (*EvaluationRequest.paths, "candidate", "history")

  compares: ClassVar[bool] = True
  first: ClassVar[tuple[str, ...]] = (
    *("model", "candidate", "input", "history", "date", "baseline", "reference", "keep_stores", *_IN_BOTH),
  )

  model: str = option(help="output of `train` or `run`", metavar="DIR")
  input: str = option(help="images: any input of `bottlenecks`", metavar="DIR")
  split: str = option("auto", "images to evaluate, see `beam-retrain evaluate --help` (default: auto)", choices=SPLITS)
  reuse: tuple[str, ...] = option(
    (),
    "also reuse bottlenecks from DIR (output of `bottlenecks`, or an evaluation with --reuse); may be repeated",
    metavar="DIR",
  )
  batch_size: int | None = batch_size_option(f"{BATCH_SIZE}, or fewer if the trunk's input is large")
  history: str = option(help="folder of all nights, one folder each", metavar="DIR")
  candidate: str | None = option(
    None, "another model to score in the same pass; every gate applies to it too", metavar="DIR"
  )
  date: str | None = option(None, "name of the night (default: today)", metavar="YYYY-MM-DD")
  baseline: str | None = option(
    None,
    "what to compare with: a night's date or folder, the output of `evaluate`, or none (default: the last"
    " finished night before DATE that passed its gates)",
    metavar="NIGHT",
  )
  reference: str | None = option(
    None,
    "also compare with a fixed night, given as for --baseline; --max_drop applies to it too (default: none)",
    metavar="NIGHT",
  )
  keep_stores: int = option(
    2,
    "number of nights that keep their bottlenecks; all keep their figures and report (default: %(default)d)",
    type=positive_int,
    metavar="N",
  )
