"""Private names of Apache Beam (as of 2.77) that have no public counterpart: all uses are here.

| private name                          | reason                                                                    |
|---------------------------------------|---------------------------------------------------------------------------|
| `FileSystems._pipeline_options`       | `set_options` has no getter; clients of ours follow the options in use    |
| `PipelineOptions._add_argparse_args`  | the only way to have Beam's flags in a parser of ours                     |
| `_GrpcDataChannel._closed`            | nothing ends a wait for the elements of a dead worker; `close()` may hang |

`tests/transforms/io/test_beam_internals.py` fails when one is gone, or when Beam has a public way.
"""

from __future__ import annotations

import argparse
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions


def options_in_use() -> PipelineOptions:
  """Returns the options of the last command or pipeline; the same object until others are set."""
  if FileSystems._pipeline_options is None:
    FileSystems.set_options(PipelineOptions(flags=[]))
  return FileSystems._pipeline_options


def add_beam_flags(parser: argparse.ArgumentParser, *options: type[PipelineOptions]) -> None:
  """Adds the flags of some of Beam's option classes."""
  for of_class in options:
    of_class._add_argparse_args(parser)


def end_data_channel(channel: Any) -> None:
  """Ends the wait for elements of a worker that is dead."""
  channel._closed = True
