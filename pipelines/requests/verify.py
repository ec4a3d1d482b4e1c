"""The flags of `verify`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from beam_retrain.pipelines.options.flags import IdxFlags, precision_option, runtime_option
from beam_retrain.pipelines.requests.evaluation import SPLITS
from beam_retrain.transforms.core.run.flags import fraction, max_bad_option, max_pixels_option, option, positive_int
from beam_retrain.transforms.core.run.request import Request

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
  command: ClassVar[str] = "verify"
  module: ClassVar[str] = "beam_retrain.pipelines.verify"
  description: ClassVar[str] = _DESCRIPTION

  first: ClassVar[tuple[str, ...]] = ("model", "input", "class_names", "transpose")

  model: str | None = option(None, "output of `train` or `run`", metavar="DIR")
  input: str | None = option(None, "images: any input of `bottlenecks`", metavar="DIR")
  images: int = option(
    200, "size of the sample, which is reproducible (default %(default)d)", type=positive_int, metavar="N"
  )
  all: bool = option(False, "use all images, not a sample")
  split: str = option("all", "images to use, as in `evaluate` (default: all)", choices=SPLITS)
  bound: float = option(
    1e-3,
    "largest difference of two scores, 0..1, that counts as rounding (default %(default)g)",
    type=fraction,
    metavar="B",
  )
  bfloat16_bound: float = option(
    0.1,
    "largest difference of two scores, 0..1, that counts as rounding in bfloat16 (default"
    " %(default)g; the largest on the 10,000 testing images of MNIST was 0.044)",
    type=fraction,
    metavar="B",
  )
  int8_bound: float = option(
    0.05,
    "fraction of the images, 0..1, to which a file or trunk in int8 may give another label (default %(default)g)",
    type=fraction,
    metavar="F",
  )
  tflite: tuple[str, ...] = option(
    (),
    "a TensorFlow Lite file; may be repeated (default: those that `train` wrote, if they are still there)",
    metavar="FILE",
  )
  same: tuple[str, ...] = option(
    (), "compare two finished output folders of the same command instead", nargs=2, metavar=("A", "B")
  )
  folder: str | None = option(None, "check the files of the finished outputs in a folder instead", metavar="DIR")
  precision: str = precision_option()
  runtime: str = runtime_option()
  max_pixels: int = max_pixels_option()
  max_bad_fraction: float = max_bad_option()
