"""Private names of argparse (Python 3.11 to 3.13) without a public counterpart.

| private name              | reason                                                               |
|---------------------------|----------------------------------------------------------------------|
| `_ActionsContainer`       | the common type of a parser and its groups, which both take flags    |
| `_add_action`             | adds a flag that another parser declares; `parents` takes all or none |
| `ArgumentParser._actions` | a parser does not list its flags; used to suggest the nearest one    |
| `_AppendAction`           | an action does not say whether its flag may be repeated              |

`tests/transforms/core/run/test_argparse_internals.py` fails when one is gone, or when argparse has a public way.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

FlagGroup = argparse._ActionsContainer
"""A parser, or a group of one."""


def actions_of(parser: argparse.ArgumentParser) -> Sequence[argparse.Action]:
  return parser._actions


def add_action(group: FlagGroup, action: argparse.Action) -> None:
  """Adds an action of another parser."""
  group._add_action(action)


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
  """Returns a parser's long flags."""
  return [flag for action in actions_of(parser) for flag in action.option_strings if flag.startswith("--")]


def is_repeated(action: argparse.Action) -> bool:
  """Returns whether each use of a flag adds a value."""
  return isinstance(action, argparse._AppendAction)
