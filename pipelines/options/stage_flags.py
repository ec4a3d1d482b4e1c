"""Flags of stages that the command which runs them offers, too."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence

from beam_retrain.transforms.core.run.argparse_internals import actions_of, add_action
from beam_retrain.transforms.core.run.request import Request


@dataclasses.dataclass(frozen=True)
class Offered:
  """The flags of a stage, without some that its command decides.

  A flag of several stages is the first one's in the help, and sets all of them. A flag with a second name that only
  shares the first, such as `--batch_size` or `--train_batch_size`, is offered by the second.
  """

  request: type[Request]
  without: tuple[str, ...]


def add_stage_flags(parser: argparse.ArgumentParser, stages: Sequence[Offered]) -> None:
  """Adds the flags of stages, in a group for each."""
  for offered, actions in _split(stages):
    group = parser.add_argument_group(f"flags of {offered.request.command}")
    for action in actions:
      add_action(group, action)


def names_here(stages: Sequence[Offered]) -> dict[type[Request], dict[str, str]]:
  """Returns by stage: field of its request -> attribute in the namespace."""
  taken = {flag: action.dest for _, actions in _split(stages) for action in actions for flag in action.option_strings}
  return {
    offered.request: {
      action.dest: taken[action.option_strings[-1]]
      for action in actions_of(offered.request.make_parser())
      if _is_offered(action, offered)
    }
    for offered in stages
  }


def _split(stages: Sequence[Offered]) -> Iterator[tuple[Offered, list[argparse.Action]]]:
  """Yields the actions of each stage that none before it has."""
  taken: set[str] = set()
  for offered in stages:
    own = []
    for action in actions_of(offered.request.make_parser()):
      names = [flag for flag in action.option_strings if flag not in taken]
      if _is_offered(action, offered) and names:
        if names != list(action.option_strings):
          action.option_strings, action.dest = names, names[0].lstrip("-")
        own.append(action)
        taken.update(names)
    yield offered, own


def _is_offered(action: argparse.Action, offered: Offered) -> bool:
  return action.dest in {field.name for field in dataclasses.fields(offered.request)} - {*offered.without}
