"""`--precision` and `--runtime`: which numbers the trunk computes with, and what runs it."""

from __future__ import annotations

import argparse

from beam_retrain.transforms.core.run.argparse_internals import FlagGroup
from beam_retrain.transforms.core.runtimes.variant import AUTO, BFLOAT16, FLOAT32, INT8, OPENVINO, TENSORFLOW

PRECISIONS = (AUTO, FLOAT32, BFLOAT16, INT8)
RUNTIMES = (AUTO, TENSORFLOW, OPENVINO)

LEAST_COSINE = 0.999
"""A bottleneck that has less of a cosine with that of float32 is another one: auto stays with float32 then."""


def add_precision_flags(parser: FlagGroup) -> None:
  """Adds `precision` and `runtime`, for what makes bottlenecks."""
  parser.add_argument(
    "--precision",
    choices=PRECISIONS,
    default=AUTO,
    help="numbers that the trunk computes with. auto (default): bfloat16, the faster, where the processor has it,"
    f" and where on a sample of the images each bottleneck has a cosine of at least {LEAST_COSINE} with that of"
    " float32; else float32. int8: faster still, calibrated on a sample of the training images; needs OpenVINO."
    " Bottlenecks of different kinds never mix",
  )
  parser.add_argument(
    "--runtime",
    choices=RUNTIMES,
    default=AUTO,
    help="what runs the trunk. auto (default): OpenVINO where it is installed (pip install 'beam-retrain[fast]'), else"
    " TensorFlow",
  )


def add_model_precision_flags(parser: FlagGroup) -> None:
  """Adds `precision` and `runtime`, for what asks a trained model."""
  parser.add_argument(
    "--precision",
    choices=PRECISIONS,
    default=AUTO,
    help="numbers that the trunk computes with: auto (default) those of the model's own bottlenecks, where this machine"
    " has them, else float32; float32: the exported model, by TensorFlow",
  )
  parser.add_argument(
    "--runtime",
    choices=RUNTIMES,
    default=AUTO,
    help="what runs the trunk: auto (default) what ran it for the model's bottlenecks, where it is installed, else"
    " TensorFlow",
  )


def given_precision(flags: argparse.Namespace) -> list[str]:
  """Returns those of the two flags that say more than auto, as arguments."""
  return [f"--{name}={getattr(flags, name)}" for name in ("precision", "runtime") if getattr(flags, name) != AUTO]
