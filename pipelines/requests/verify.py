"""The flags of `verify`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import ClassVar

from beam_retrain.pipelines.options.flags import IdxFlags, add_idx_flags, add_model_precision_flags
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS
from beam_retrain.transforms.core.run.flags import add_max_bad_fraction, add_max_pixels, fraction, positive_int
from beam_retrain.transforms.core.run.request import Request
from beam_retrain.transforms.core.runtimes.variant import AUTO

_DESCRIPTION = """\
Scores images in every way that a model offers, and compares the scores with those of the exported model in the batches
of a job. The other ways: its serving signature on the images' bytes, its trunk's bottlenecks through head.npz in numpy,
the frozen graph, the TensorFlow Lite files that `train` wrote, and the batch path (what `evaluate` runs): the prepared
trunk of the model's bottlenecks, then head.npz. The exit code is 1 if a score, 0..1, differs by more than --bound; the
first such image is named. In a batch path with bfloat16, --bfloat16_bound applies instead. In int8, scores are not
comparable: labels are compared, and may differ for the fraction --int8_bound of the images.

  beam-retrain verify --model work/model --input work/images
  beam-retrain verify --model work/model --input work/images --split testing --all

With --same, compares two finished output folders of one command record by record and row by row. The exit code is 1 if
they differ; the first difference is named. What may differ between two runs is ignored: the column Execution time, the
command line, paths, versions, logs, the report's charts.

  beam-retrain verify --same work/bottlenecks elsewhere/bottlenecks

With --folder, checks the size and SHA-256 of every file that a command wrote into the folder and its subfolders. The
exit code is 1 if one is damaged; each is named.

  beam-retrain verify --folder work"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyRequest(Request, IdxFlags):
  """Options of `verify`; see the flags' help."""

  command: ClassVar[str] = "verify"
  module: ClassVar[str] = "beam_retrain.pipelines.verify"
  description: ClassVar[str] = _DESCRIPTION

  model: str | None = None
  input: str | None = None
  images: int = 200
  all: bool = False
  split: str = "all"
  bound: float = 1e-3
  bfloat16_bound: float = 0.1
  int8_bound: float = 0.05
  tflite: tuple[str, ...] = ()
  same: tuple[str, ...] = ()
  folder: str | None = None
  precision: str = AUTO
  runtime: str = AUTO
  max_pixels: int = MAX_PIXELS
  max_bad_fraction: float = 0.0

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="DIR", help="output of `train` or `run`")
    parser.add_argument("--input", metavar="DIR", help="images: any input of `bottlenecks`")
    add_idx_flags(parser)
    parser.add_argument(
      "--images",
      type=positive_int,
      metavar="N",
      help="size of the sample, which is reproducible (default %(default)d)",
    )
    parser.add_argument("--all", action="store_true", help="use all images, not a sample")
    parser.add_argument(
      "--split", choices=("auto", "testing", "all"), help="images to use, as in `evaluate` (default: all)"
    )
    parser.add_argument(
      "--bound",
      type=fraction,
      metavar="B",
      help="largest difference of two scores, 0..1, that counts as rounding (default %(default)g)",
    )
    parser.add_argument(
      "--bfloat16_bound",
      type=fraction,
      metavar="B",
      help="largest difference of two scores, 0..1, that counts as rounding in bfloat16 (default"
      " %(default)g; the largest on the 10,000 testing images of MNIST was 0.044)",
    )
    parser.add_argument(
      "--int8_bound",
      type=fraction,
      metavar="F",
      help="fraction of the images, 0..1, to which a file or trunk in int8 may give another label (default"
      " %(default)g)",
    )
    parser.add_argument(
      "--tflite",
      action="append",
      metavar="FILE",
      help="a TensorFlow Lite file; may be repeated (default: those that `train` wrote, if they are still there)",
    )
    parser.add_argument(
      "--same", nargs=2, metavar=("A", "B"), help="compare two finished output folders of the same command instead"
    )
    parser.add_argument("--folder", metavar="DIR", help="check the files of the finished outputs in a folder instead")
    add_model_precision_flags(parser)
    add_max_pixels(parser)
    add_max_bad_fraction(parser)
