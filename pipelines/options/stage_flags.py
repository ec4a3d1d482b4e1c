"""Stages of a chain, and their flags in the chain's command."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TypeVar

from beam_retrain.transforms.core.run.argparse_internals import actions_of, add_action
from beam_retrain.transforms.core.run.request import Request
from beam_retrain.transforms.core.run.run_info import versions

RequestT = TypeVar("RequestT", bound=Request)
SPLIT_PERCENTAGES = ("testing_percentage", "validation_percentage")


@dataclasses.dataclass(frozen=True)
class Stage:
  request: Request
  decisive: Sequence[str]  # the fields that decide the output, in the order in which a state digests them

  @property
  def command(self) -> str:
    return self.request.command

  @property
  def output(self) -> str:
    return str(vars(self.request)["output"])

  def state(self, after: str) -> str:
    """Returns the digest of request, versions and input, 64 hex digits."""
    return hashlib.sha256(json.dumps([self.command, self.words(), after, versions()]).encode()).hexdigest()

  def words(self) -> list[str]:
    """Returns the decisive fields as 0.4 wrote them: its states stay valid."""
    values = {name: getattr(self.request, name) for name in self.decisive if name in self.request.given}
    values |= {name: f"{values[name]:g}" for name in SPLIT_PERCENTAGES if name in values}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in values.items()]


def make_request(cls: type[RequestT], **values: object) -> RequestT:
  """Returns a request with the values that are not None."""
  given = {name: value for name, value in values.items() if value is not None}
  return cls(**given, given=frozenset(given), typed=())


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
