"""The flags of `predict`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import ClassVar

from beam_retrain.pipelines.options.flags import add_model_precision_flags
from beam_retrain.transforms.core.run.flags import add_max_bad_fraction, positive_int
from beam_retrain.transforms.core.run.request import NO_FLAG, Request
from beam_retrain.transforms.core.runtimes.variant import AUTO

_DESCRIPTION = """\
Predicts the labels of images (JPEG, PNG, BMP, GIF, WebP) and their confidence. A folder stands for all files in it and
below, of any extension, except hidden ones, those of file managers and NAS, and READMEs and licences. Files that cannot
be used are reported on standard error and skipped; the exit code is then 3.

  beam-retrain predict --model work/model digit.png
  beam-retrain predict --model work/model --top 3 --format csv photos/ > predicted.csv"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictRequest(Request):
  """Options of `predict`; see the flags' help."""

  command: ClassVar[str] = "predict"
  module: ClassVar[str] = "beam_retrain.pipelines.predict"
  description: ClassVar[str] = _DESCRIPTION

  model: str
  images: tuple[str, ...] = dataclasses.field(metadata=NO_FLAG)
  top: int = 1
  format: str = "text"
  precision: str = AUTO
  runtime: str = AUTO
  max_bad_fraction: float = 0.0

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="output of `train` or `run`")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file, or folder of images")
    parser.add_argument("--top", type=positive_int, metavar="N", help="labels per image (default 1)")
    parser.add_argument("--format", choices=("text", "csv", "json"), help="of the output (default text)")
    add_model_precision_flags(parser)
    add_max_bad_fraction(parser)
