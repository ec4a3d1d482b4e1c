"""Typed requests: what is given, what is a default, and the command line that makes the same request."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest

from beam_retrain.transforms.core.errors import InputError, flag, flag_names
from beam_retrain.transforms.core.run.flags import option
from beam_retrain.transforms.core.run.request import Request


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bake(Request):
  command: ClassVar[str] = "bake"
  description: ClassVar[str] = "Bakes."

  input: str = option()
  minutes: int = option(20, "how long (default: %(default)d)", type=int)
  crust: str | None = option(None)
  hot: bool = option(False)
  reuse: tuple[str, ...] = option(())
  formats: tuple[str, ...] = option(("loaf", "roll"), type=lambda text: tuple(text.split(",")), separator=",")


def test_defaults_are_the_fields():
  request = _Bake.parse(["--input=a"])
  assert request == _Bake(input="a")
  assert request.given == {"input"}
  assert _Bake.make_parser().parse_args(["--input=a"]).minutes == 20
  assert "how long (default: 20)" in _Bake.make_parser().format_help()


@pytest.mark.parametrize(
  "argv",
  [
    ["--input=a"],
    ["--input=a b", "--minutes=30", "--crust=dark", "--hot"],
    ["--input=a", "--reuse=b", "--reuse=c"],
    ["--input=a", "--formats=roll,bun"],
    ["--input=a", "--minutes=20"],
  ],
)
def test_a_request_gives_back_its_command_line(argv: list[str]):
  request = _Bake.parse(argv)
  assert request.to_argv() == argv
  again = _Bake.parse(request.to_argv())
  assert (again, again.given) == (request, request.given)


def test_a_request_made_in_code_says_what_is_no_default():
  request = _Bake(input="a", minutes=20, hot=True, reuse=("b",))
  assert request.to_argv() == ["--input=a", "--hot", "--reuse=b"]
  assert _Bake.parse(request.to_argv()) == request


def test_an_unknown_flag_is_an_input_error():
  with pytest.raises(InputError, match=r"beam-retrain bake: --minuts: .*--minutes"):
    _Bake.parse(["--input=a", "--minuts=3"])
  with pytest.raises(InputError, match="--input"):
    _Bake.parse([])


def test_messages_name_the_flags_of_the_command_that_was_typed():
  assert flag("input") == "--input"
  with flag_names({"input": "image_dir"}):
    assert (flag("input"), flag("reuse")) == ("--image_dir", "--reuse")
  assert flag("input") == "--input"
