"""The private names of Beam that are leaned on are there, and have no public counterpart yet."""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
import unittest.mock

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, S3Options
from apache_beam.runners.worker import data_plane
from apache_beam.transforms import userstate

from beam_retrain.transforms.io.beam_internals import (
  add_beam_flags,
  end_data_channel,
  options_in_use,
  remembered_inspections,
)


def test_the_options_in_use_are_those_that_were_set_last_and_have_no_getter():
  given = PipelineOptions(flags=["--s3_region_name=nowhere"])
  before = options_in_use()
  try:
    FileSystems.set_options(given)
    assert options_in_use() is given is options_in_use()
  finally:
    FileSystems.set_options(before)
  assert not [name for name in ("get_options", "options") if hasattr(FileSystems, name)], "use the public one"


def test_a_parser_gets_the_flags_of_an_option_class_which_has_no_public_way_to_add_them():
  parser = argparse.ArgumentParser()
  add_beam_flags(parser, S3Options)
  assert parser.parse_args(["--s3_region_name=here"]).s3_region_name == "here"
  assert not hasattr(PipelineOptions, "add_argparse_args"), "use the public one"


def test_a_closed_data_channel_ends_the_wait_of_its_reader_and_close_still_waits_for_the_sender():
  source = inspect.getsource(data_plane._GrpcDataChannel.input_elements)
  assert "if self._closed:" in source, "an attribute of another name is read there"
  channel = data_plane._GrpcDataChannel()
  end_data_channel(channel)
  assert channel._closed is True
  waits = ".join()" in inspect.getsource(data_plane._GrpcDataChannel.close)
  assert waits, "close() no longer waits for a sender: call it"


class _Plain(beam.DoFn):
  pass


class _WithState(beam.DoFn):
  COUNT = userstate.ReadModifyWriteStateSpec("count", VarIntCoder())

  def process(self, element, count=beam.DoFn.StateParam(COUNT)):  # noqa: B008  # as Beam has it
    yield count.read()


def test_a_class_of_dofns_is_inspected_once_and_one_with_state_is_known_as_such():
  with unittest.mock.patch.object(userstate, "get_dofn_specs", wraps=userstate.get_dofn_specs) as inspected:
    with remembered_inspections():
      assert [userstate.is_stateful_dofn(dofn()) for dofn in (_Plain, _Plain, _WithState, _Plain)] == [
        *(False, False, True, False)
      ]
      assert userstate.get_dofn_specs(_WithState()) == ({_WithState.COUNT}, set())
    assert [type(call.args[0]) for call in inspected.call_args_list] == [_Plain, _WithState, _WithState]


def test_a_dofn_that_has_methods_of_its_own_is_inspected_itself():
  plain, changed = _Plain(), _Plain()
  changed.process = _WithState().process
  with remembered_inspections():
    assert not userstate.is_stateful_dofn(plain)
    assert userstate.is_stateful_dofn(changed)
    assert not userstate.is_stateful_dofn(plain)


def test_the_flags_of_an_option_class_are_parsed_once_and_each_view_has_the_values_of_its_options():
  with unittest.mock.patch.object(
    PipelineOptions, "__init__", autospec=True, side_effect=PipelineOptions.__init__
  ) as parse:
    one, other = (PipelineOptions(flags=[f"--direct_num_workers={n}"]) for n in (2, 3))
    with remembered_inspections():
      parsed_before = parse.call_count
      views = [options.view_as(DirectOptions) for options in (one, one, one, other, other)]
      assert parse.call_count == parsed_before + 2
      assert [view.direct_num_workers for view in views] == [2, 2, 2, 3, 3]
      views[2].direct_num_workers = 5
      assert [view.direct_num_workers for view in views] == [5, 5, 5, 3, 3]
      assert one.get_all_options()["direct_num_workers"] == 5
      with pytest.raises(AttributeError, match="has no attribute"):
        views[1].s3_region_name  # noqa: B018


def test_outside_of_a_job_beam_is_as_it_was_and_would_look_again_each_time():
  before = userstate.get_dofn_specs, PipelineOptions.view_as

  @remembered_inspections()
  def fail():
    assert userstate.get_dofn_specs is not before[0]
    assert PipelineOptions.view_as is not before[1]
    raise RuntimeError("a job that failed")

  with pytest.raises(RuntimeError, match="a job that failed"):
    fail()
  assert (userstate.get_dofn_specs, PipelineOptions.view_as) == before
  assert "in dir(dofn)" in inspect.getsource(userstate.get_dofn_specs), (
    "it may remember by itself: measure without ours"
  )
  assert "view = cls(self._flags)" in inspect.getsource(PipelineOptions.view_as), (
    "it may parse once: measure without ours"
  )


def test_run_inference_finds_resource_without_pytorch_which_beam_alone_does_not():
  ask = "from apache_beam.ml.inference import base; print(base._get_current_process_memory_in_bytes())"
  alone, ours = (
    subprocess.run([sys.executable, "-c", first + ask], capture_output=True, text=True, check=True)
    for first in ("", "import beam_retrain.transforms.bottlenecks.model_handler; ")
  )
  assert int(alone.stdout) == 0
  assert "Resource module is not available" in alone.stderr
  assert int(ours.stdout) > 0
  assert "Resource module" not in ours.stderr
