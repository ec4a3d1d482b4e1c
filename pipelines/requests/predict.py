"""The flags of `predict`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from beam_retrain.pipelines.options.flags import precision_option, runtime_option
from beam_retrain.transforms.core.run.flags import max_bad_option, option, positive_int
from beam_retrain.transforms.core.run.request import Request

_DESCRIPTION = """\
Predicts the labels of images (JPEG, PNG, BMP, GIF, WebP) and their confidence. A folder stands for all files in it and
below, of any extension, except hidden ones, those of file managers and NAS, and READMEs and licences. Files that cannot
be used are reported on standard error and skipped; the exit code is then 3.

  beam-retrain predict --model work/model digit.png
  beam-retrain predict --model work/model --top 3 --format csv photos/ > predicted.csv"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictRequest(Request):
  command: ClassVar[str] = "predict"
  module: ClassVar[str] = "beam_retrain.pipelines.predict"
  description: ClassVar[str] = _DESCRIPTION

  model: str = option(help="output of `train` or `run`", metavar="DIR")
  images: tuple[str, ...] = option(help="image file, or folder of images", flag=False, nargs="+", metavar="IMAGE")
  top: int = option(1, "labels per image (default 1)", type=positive_int, metavar="N")
  format: str = option("text", "of the output (default text)", choices=("text", "csv", "json"))
  precision: str = precision_option()
  runtime: str = runtime_option()
  max_bad_fraction: float = max_bad_option()
