"""`train`: trains a softmax head on bottlenecks and exports the model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from beam_retrain.trainer.options import TrainRequest
from beam_retrain.trainer.plan import plan
from beam_retrain.transforms.core.records.schema import TESTING, VALIDATION
from beam_retrain.transforms.core.run.cli import ExitCode, run_command
from beam_retrain.transforms.core.system.imports import load_tensorflow

if TYPE_CHECKING:
  from beam_retrain.trainer.export.metrics import TrainMetrics

__all__ = ["execute", "make_parser", "run"]

make_parser = TrainRequest.make_parser


def run(argv: Sequence[str]) -> int:
  return execute(TrainRequest.parse(argv))


def execute(request: TrainRequest, copies: Mapping[str, str] | None = None) -> int:
  """Trains, exports and reports; returns the exit code.

  Args:
    copies: `input` or `output` of the request -> the local folder used instead.
  """
  job = plan(request, copies or {})
  load_tensorflow()
  from beam_retrain.trainer.work import train_and_export

  return report(train_and_export(job), request)


def report(metrics: TrainMetrics, request: TrainRequest) -> int:
  tested = metrics.scores[TESTING]
  where = f"{request.output}/saved_model"
  if tested.images:
    print(f"testing accuracy {tested.accuracy:.2%} of {tested.images:,} images; the model is in {where}")
  else:
    validated = metrics.scores[VALIDATION].accuracy
    print(f"validation accuracy {validated:.2%}; there are no testing images; the model is in {where}")
  for kind, lite in metrics.tflite.items():
    path = os.path.normpath(os.path.join(request.output, lite.file))
    accuracy = lite.int8.testing_accuracy if lite.int8 else None
    measured = f"testing accuracy {accuracy:.2%}, " if accuracy is not None else ""
    print(f"TensorFlow Lite, {kind}: {measured}{lite.bytes:,} bytes, in {path}")
  wanted = request.assert_accuracy_at_least
  if wanted is None or (tested.images and tested.accuracy >= wanted):
    return ExitCode.DONE
  found = f"testing accuracy is {tested.accuracy:.4f}" if tested.images else "there are no testing images"
  print(f"beam-retrain: {found}, but --assert_accuracy_at_least is {wanted:g}.", file=sys.stderr)
  return ExitCode.GATE_MISSED


def main() -> None:
  sys.exit(run_command(run, sys.argv[1:]))


if __name__ == "__main__":
  main()
