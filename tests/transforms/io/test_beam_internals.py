"""The private names of Beam that are leaned on are there, and have no public counterpart yet."""

from __future__ import annotations

import argparse
import inspect

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, S3Options
from apache_beam.runners.worker import data_plane

from beam_retrain.transforms.io.beam_internals import add_beam_flags, end_data_channel, options_in_use


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
