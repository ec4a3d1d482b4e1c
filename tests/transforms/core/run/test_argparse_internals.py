"""The private names of argparse that are leaned on are there, and have no public counterpart yet."""

from __future__ import annotations

import argparse

from beam_retrain.transforms.core.run.argparse_internals import FlagGroup, actions_of, add_action, flags_of, is_repeated


def test_a_parser_and_its_groups_are_flag_groups():
  parser = argparse.ArgumentParser()
  assert isinstance(parser, FlagGroup)
  assert isinstance(parser.add_argument_group("more"), FlagGroup)
  assert not hasattr(argparse, "ActionsContainer"), "use the public one"


def test_a_parser_s_flags_are_read_and_it_has_no_public_list_of_them():
  parser = argparse.ArgumentParser(add_help=False)
  parser.add_argument("-i", "--input")
  parser.add_argument_group("more").add_argument("--output")
  assert flags_of(parser) == ["--input", "--output"]
  assert [action.dest for action in actions_of(parser)] == ["input", "output"]
  assert not [name for name in ("actions", "get_actions") if hasattr(parser, name)], "use the public one"


def test_a_flag_of_another_parser_is_taken_as_it_is():
  declared = argparse.ArgumentParser(add_help=False).add_argument("--number", type=int)
  parser = argparse.ArgumentParser()
  add_action(parser.add_argument_group("more"), declared)
  assert parser.parse_args(["--number=3"]).number == 3


def test_a_flag_that_may_be_repeated_is_told_by_its_class():
  parser = argparse.ArgumentParser(add_help=False)
  once, often = parser.add_argument("--once"), parser.add_argument("--often", action="append")
  assert (is_repeated(once), is_repeated(often)) == (False, True)
  assert not hasattr(argparse, "AppendAction"), "use the public one"
