"""The flags of `evaluate` and `reevaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from beam_retrain.pipelines.options.flags import (
  IdxFlags,
  add_corrections,
  add_idx_flags,
  add_model_flags,
  add_model_precision_flags,
)
from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.reporting.gates import GATES
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS
from beam_retrain.transforms.core.records.schema import STORES_FOLDER
from beam_retrain.transforms.core.run.flags import add_max_bad_fraction, fraction, positive_int
from beam_retrain.transforms.core.runtimes.trunk_info import BATCH_SIZE, BOTTLENECKS_BATCH_SIZE
from beam_retrain.transforms.core.runtimes.variant import AUTO, BOUNDS_IN_WORDS

CHECKED = textwrap.fill(
  "The figures are held against the exported model (float32, by TensorFlow) on a sample of 64 images: the smallest"
  " cosine of an image's bottlenecks, and the share of equal predictions, must be at least"
  f" {BOUNDS_IN_WORDS}. Else the exit code is 2, whatever the gates: they cannot be judged. Stored bottlenecks come"
  " without images: generated ones are used.",
  118,
)
"""In the description of both commands."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRequest(JobRequest, IdxFlags):
  """Options of both commands; see the flags' help.

  Attributes:
    gates: (gate, threshold 0..1) of those that are set; each gate has its own flag.
  """

  paths: ClassVar[tuple[str, ...]] = ("model", "input", "reuse", "manifest", "class_names", "corrections")

  model: str
  input: str
  split: str = "auto"
  reuse: tuple[str, ...] = ()
  manifest: str | None = None
  min_slice_size: int = 30
  gates: tuple[tuple[str, float], ...] = ()
  batch_size: int | None = None
  trunk_threads: int | None = None
  corrections: str | None = None
  max_pixels: int = MAX_PIXELS
  precision: str = AUTO
  runtime: str = AUTO
  max_bad_fraction: float = 0.0

  @classmethod
  def add_common_flags(
    cls,
    parser: argparse.ArgumentParser,
    *,
    split_help: str,
    reuse_help: str,
    default_batch_size: str,
    with_comparison: bool = False,
  ) -> None:
    """Adds all flags except `model` and `input`, whose help differs."""
    parser.add_argument("--split", choices=("auto", "testing", "all"), help=split_help)
    parser.add_argument("--reuse", action="append", metavar="DIR", help=reuse_help)
    parser.add_argument(
      "--manifest",
      metavar="CSV",
      help="also evaluate by slice: a CSV with a column file_name, the image's key as in predictions.csv, and others"
      " (writer, device, ...), each of whose values is a slice",
    )
    parser.add_argument(
      "--min_slice_size",
      type=positive_int,
      metavar="N",
      help="merge slices of fewer images (default: %(default)d)",
    )
    for gate in GATES.values():
      if gate.has_flag and (with_comparison or not gate.needs_comparison):
        parser.add_argument(
          f"--{gate.name}", dest="gates", action=_SetGate, type=fraction, metavar=gate.metavar, help=gate.help
        )
    add_idx_flags(parser)
    add_model_flags(parser, default_batch_size)
    add_model_precision_flags(parser)
    add_corrections(parser)
    add_max_bad_fraction(parser)

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
  """Options of `evaluate`; see the flags' help."""

  command: ClassVar[str] = "evaluate"
  module: ClassVar[str] = "beam_retrain.pipelines.evaluate"
  description: ClassVar[str] = _EVALUATE
  epilog: ClassVar[str] = _EVALUATE_EXAMPLE
  paths: ClassVar[tuple[str, ...]] = (*EvaluationRequest.paths, "output")

  output: str
  label_errors: bool = False

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="output of `train` or `run`")
    parser.add_argument(
      "--input",
      required=True,
      metavar="DIR",
      help="images: any input of `bottlenecks`; or the output of `bottlenecks`, which needs the model's head only",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="a new or empty folder, or an earlier output")
    cls.add_common_flags(
      parser,
      split_help="auto (default): the testing images if the input has splits (IDX files, folders training/ and"
      " testing/, records, bottlenecks), else all images. testing: of class folders or a manifest without splits, the"
      " images whose names hash into the model's testing set. all: the training images too",
      reuse_help="reuse the bottlenecks in DIR (output of `bottlenecks`, an evaluation with --reuse, or a night of"
      " `reevaluate`), run the trunk only on the other images, and keep all bottlenecks in"
      f" OUTPUT/{STORES_FOLDER}; may be repeated",
      default_batch_size=f"{BATCH_SIZE}; {BOTTLENECKS_BATCH_SIZE} for stored bottlenecks",
    )
    parser.add_argument(
      "--label_errors",
      action="store_true",
      help="also look for wrong labels, by heads that are trained without the image (confident learning) and by the"
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
  """Options of `reevaluate`; see the flags' help."""

  command: ClassVar[str] = "reevaluate"
  module: ClassVar[str] = "beam_retrain.pipelines.reevaluate.command"
  description: ClassVar[str] = _REEVALUATE
  epilog: ClassVar[str] = _REEVALUATE_EXAMPLE
  paths: ClassVar[tuple[str, ...]] = (*EvaluationRequest.paths, "candidate", "history")

  history: str
  candidate: str | None = None
  date: str | None = None
  baseline: str | None = None
  reference: str | None = None
  keep_stores: int = 2

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="output of `train` or `run`")
    parser.add_argument(
      "--candidate", metavar="DIR", help="another model to score in the same pass; every gate applies to it too"
    )
    parser.add_argument("--input", required=True, metavar="DIR", help="images: any input of `bottlenecks`")
    parser.add_argument("--history", required=True, metavar="DIR", help="folder of all nights, one folder each")
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="name of the night (default: today)")
    parser.add_argument(
      "--baseline",
      metavar="NIGHT",
      help="what to compare with: a night's date or folder, the output of `evaluate`, or none (default: the last"
      " finished night before DATE that passed its gates)",
    )
    parser.add_argument(
      "--reference",
      metavar="NIGHT",
      help="also compare with a fixed night, given as for --baseline; --max_drop applies to it too (default: none)",
    )
    parser.add_argument(
      "--keep_stores",
      type=positive_int,
      metavar="N",
      help="number of nights that keep their bottlenecks; all keep their figures and report (default: %(default)d)",
    )
    cls.add_common_flags(
      parser,
      split_help="images to evaluate, see `beam-retrain evaluate --help` (default: auto)",
      reuse_help="also reuse bottlenecks from DIR (output of `bottlenecks`, or an evaluation with --reuse); may be"
      " repeated",
      default_batch_size=str(BATCH_SIZE),
      with_comparison=True,
    )
