"""The flags of `serve`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from beam_retrain.pipelines.options.flags import precision_option, runtime_option
from beam_retrain.transforms.core.run.flags import max_pixels_option, option, whole_number
from beam_retrain.transforms.core.run.request import Request

_DESCRIPTION = """\
Serves a model on this machine: http://127.0.0.1:8501/ has pages to try it on an image or a drawing, to review the
mistakes of an evaluation, and to look at nights; programs ask POST /v1/models/model:predict, as TensorFlow Serving has
it. What is decided in a review is written to a CSV file at once.

  beam-retrain serve --model work/train
  beam-retrain serve --model work/train --bottlenecks work/bottlenecks --evaluation work/evaluate --history nights

Ctrl-C or SIGTERM ends it, once the requests that are there have their answers. It needs the extra [serve]."""

MIN_TOKEN = 16  # characters


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeRequest(Request):
  command: ClassVar[str] = "serve"
  module: ClassVar[str] = "beam_retrain.pipelines.serve.command"
  description: ClassVar[str] = _DESCRIPTION

  model: str = option(help="output of `train` or `run`", metavar="DIR")
  bottlenecks: str | None = option(None, "those it was trained on: shows the nearest images", metavar="DIR")
  evaluation: str | None = option(None, "output of `evaluate`, or a night: what is to be reviewed", metavar="DIR")
  history: str | None = option(None, "the nights of `reevaluate`", metavar="DIR")
  corrections: str = option(
    "corrections.csv", "where decisions are kept (default: corrections.csv, here)", metavar="FILE"
  )
  name: str = option("model", "of the model in addresses (default: model)")
  host: str = option("127.0.0.1", "address to listen on; one that others reach needs --token (default: 127.0.0.1)")
  port: int = option(8501, "0: any that is free (default: 8501)", type=whole_number(0, 65535), metavar="N")
  token: str | None = option(
    None, f"secret that clients send, at least {MIN_TOKEN} characters; @FILE: the first line of a file"
  )
  precision: str = precision_option()
  runtime: str = runtime_option()
  max_pixels: int = max_pixels_option()
