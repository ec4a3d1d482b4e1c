"""All uses of private names of Apache Beam (as of 2.77).

| private name                          | reason                                                                    |
|---------------------------------------|---------------------------------------------------------------------------|
| `FileSystems._pipeline_options`       | `set_options` has no getter; our clients follow the options in use        |
| `PipelineOptions._add_argparse_args`  | the only way to add Beam's flags to our parser                            |
| `_GrpcDataChannel._closed`            | nothing else ends a wait for a dead worker's elements; `close()` may hang |
| `PipelineOptions._visible_options`    | Beam parses all flags again for each view, 1,700 times in a small job     |
| `userstate.get_dofn_specs`            | Beam reads all signatures of a DoFn again, 1,200 times in a small job     |
| `ml.inference.base.resource`          | Beam takes missing PyTorch for a missing `resource`, and warns of that    |

The two before the last take half of the time of a small job: `remembered_inspections` keeps what they found.

`tests/transforms/io/test_beam_internals.py` fails when a name is gone, or when Beam has a public one.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import types
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import userstate


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


def see_resource(base: Any) -> None:
  """Gives `apache_beam.ml.inference.base` the standard library's `resource`."""
  base.resource = base.resource or resource


@contextlib.contextmanager
def remembered_inspections() -> Iterator[None]:
  """Lets Beam look at each DoFn class and each option class once."""
  inspect_dofn, make_view = userstate.get_dofn_specs, PipelineOptions.view_as
  stateless: set[type] = set()
  parsed: dict[type, argparse.Namespace] = {}

  def get_dofn_specs(dofn: beam.DoFn) -> tuple[set[Any], set[Any]]:
    # Methods of the object alone, such as those of a wrapped callable, are not known by its class.
    has_own_methods = any(isinstance(value, types.MethodType) for value in vars(dofn).values())
    if not has_own_methods and type(dofn) in stateless:
      return set(), set()
    states, timers = inspect_dofn(dofn)
    if not has_own_methods and not states and not timers:
      stateless.add(type(dofn))
    return states, timers

  def view_as(options: PipelineOptions, cls: type[PipelineOptions]) -> PipelineOptions:
    known = parsed.get(cls)
    # The values of the first view are taken into `_all_options`; later ones read the names alone.
    if known is None or not vars(known).keys() <= options._all_options.keys():
      view = make_view(options, cls)
      parsed[cls] = view._visible_options
      return view
    view = object.__new__(cls)
    view._flags, view._visible_options, view._all_options = options._flags, known, options._all_options
    return view

  userstate.get_dofn_specs, PipelineOptions.view_as = get_dofn_specs, view_as
  try:
    yield
  finally:
    userstate.get_dofn_specs, PipelineOptions.view_as = inspect_dofn, make_view
