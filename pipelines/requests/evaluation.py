"""The flags that `evaluate` and `reevaluate` share."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from beam_retrain.pipelines.options.flags import IdxFlags, add_idx_flags, add_model_flags, add_model_precision_flags
from beam_retrain.pipelines.options.request import JobRequest
from beam_retrain.reporting.gates import GATES
from beam_retrain.transforms.core.models.agreement import BOUNDS_IN_WORDS
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS
from beam_retrain.transforms.core.run.flags import add_max_bad_fraction, fraction, positive_int
from beam_retrain.transforms.core.runtimes.variant import AUTO

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

  paths: ClassVar[tuple[str, ...]] = ("model", "input", "reuse", "manifest", "class_names")

  model: str
  input: str
  split: str = "auto"
  reuse: tuple[str, ...] = ()
  manifest: str | None = None
  min_slice_size: int = 30
  gates: tuple[tuple[str, float], ...] = ()
  batch_size: int | None = None
  trunk_threads: int | None = None
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
