"""All uses of private names of Apache Beam (as of 2.77).

| private name                          | reason                                                                    |
|---------------------------------------|---------------------------------------------------------------------------|
| `FileSystems._pipeline_options`       | `set_options` has no getter; our clients follow the options in use        |
| `PipelineOptions._add_argparse_args`  | the only way to add Beam's flags to our parser                            |
| `_GrpcDataChannel._closed`            | nothing else ends a wait for a dead worker's elements; `close()` may hang |

`tests/transforms/io/test_beam_internals.py` fails when a name is gone, or when Beam has a public one.
"""

from __future__ import annotations

import argparse
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions


def options_in_use() -> PipelineOptions:
  """Returns the current options, the same object until others are set."""
  if FileSystems._pipeline_options is None:
    FileSystems.set_options(PipelineOptions(flags=[]))
  return FileSystems._pipeline_options


def add_beam_flags(parser: argparse.ArgumentParser, *options: type[PipelineOptions]) -> None:
  """Adds the flags of Beam's option classes to a parser."""
  for option_class in options:
    option_class._add_argparse_args(parser)


def end_data_channel(channel: Any) -> None:
  """Ends the wait for a dead worker's elements."""
  channel._closed = True
