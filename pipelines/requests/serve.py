"""The flags of `serve`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import ClassVar

from beam_retrain.pipelines.options.flags import add_model_precision_flags
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS
from beam_retrain.transforms.core.run.flags import add_max_pixels, whole_number
from beam_retrain.transforms.core.run.request import Request
from beam_retrain.transforms.core.runtimes.variant import AUTO

_DESCRIPTION = """\
Serves a model on this machine: http://127.0.0.1:8501/ has pages to try it on an image or a drawing, to review the
mistakes of an evaluation, and to look at nights; programs ask POST /v1/models/model:predict, as TensorFlow Serving has
it. What is decided in a review is written to a CSV file at once.

  beam-retrain serve --model work/train
  beam-retrain serve --model work/train --bottlenecks work/bottlenecks --evaluation work/evaluate --history nights

Ctrl-C or SIGTERM ends it, once the requests that are there have their answers. It needs the extra [serve]."""

MIN_TOKEN = 16
"""Characters."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeRequest(Request):
  """Options of `serve`; see the flags' help."""

  command: ClassVar[str] = "serve"
  module: ClassVar[str] = "beam_retrain.pipelines.serve.command"
  description: ClassVar[str] = _DESCRIPTION

  model: str
  bottlenecks: str | None = None
  evaluation: str | None = None
  history: str | None = None
  corrections: str = "corrections.csv"
  name: str = "model"
  host: str = "127.0.0.1"
  port: int = 8501
  token: str | None = None
  precision: str = AUTO
  runtime: str = AUTO
  max_pixels: int = MAX_PIXELS

  @classmethod
  def add_flags(cls, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="output of `train` or `run`")
    parser.add_argument("--bottlenecks", metavar="DIR", help="those it was trained on: shows the nearest images")
    parser.add_argument("--evaluation", metavar="DIR", help="output of `evaluate`, or a night: what is to be reviewed")
    parser.add_argument("--history", metavar="DIR", help="the nights of `reevaluate`")
    parser.add_argument(
      "--corrections", metavar="FILE", help="where decisions are kept (default: corrections.csv, here)"
    )
    parser.add_argument("--name", help="of the model in addresses (default: model)")
    parser.add_argument("--host", help="address to listen on; one that others reach needs --token (default: 127.0.0.1)")
    parser.add_argument("--port", type=whole_number(0, 65535), metavar="N", help="0: any that is free (default: 8501)")
    parser.add_argument(
      "--token",
      help=f"secret that clients send, at least {MIN_TOKEN} characters; @FILE: the first line of a file",
    )
    add_model_precision_flags(parser)
    add_max_pixels(parser)
