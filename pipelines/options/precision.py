"""The flags `--precision` and `--runtime` of the trunk."""

from __future__ import annotations

import argparse

from beam_retrain.transforms.core.run.argparse_internals import FlagGroup
from beam_retrain.transforms.core.runtimes.variant import AUTO, BFLOAT16, FLOAT32, INT8, OPENVINO, TENSORFLOW

PRECISIONS = (AUTO, FLOAT32, BFLOAT16, INT8)
RUNTIMES = (AUTO, TENSORFLOW, OPENVINO)

LEAST_COSINE = 0.999
"""Smallest cosine with float32 at which auto takes another precision."""


def add_precision_flags(parser: FlagGroup) -> None:
  """Adds `precision` and `runtime`, for commands that compute bottlenecks."""
  parser.add_argument(
    "--precision",
    choices=PRECISIONS,
    default=AUTO,
    help="numbers that the trunk computes with. auto (default): bfloat16, which is faster, if the processor has it"
    f" and each bottleneck of a sample of the images has a cosine of at least {LEAST_COSINE} with float32's; else"
    " float32. int8: faster still, calibrated on a sample of the training images; needs OpenVINO. Bottlenecks of"
    " different precisions never mix",
  )
  parser.add_argument(
    "--runtime",
    choices=RUNTIMES,
    default=AUTO,
    help="what runs the trunk. auto (default): OpenVINO if installed (pip install 'beam-retrain[fast]'), else"
    " TensorFlow",
  )


def add_model_precision_flags(parser: FlagGroup) -> None:
  """Adds `precision` and `runtime`, for commands that use a trained model."""
  parser.add_argument(
    "--precision",
    choices=PRECISIONS,
    default=AUTO,
    help="numbers that the trunk computes with: auto (default): those of the model's bottlenecks if this machine has"
    " them, else float32; float32: the exported model, by TensorFlow",
  )
  parser.add_argument(
    "--runtime",
    choices=RUNTIMES,
    default=AUTO,
    help="what runs the trunk: auto (default): what ran it for the model's bottlenecks if installed, else TensorFlow",
  )


def given_precision(flags: argparse.Namespace) -> list[str]:
  """Returns those of the two flags that are not auto, as arguments."""
  return [f"--{name}={getattr(flags, name)}" for name in ("precision", "runtime") if getattr(flags, name) != AUTO]
