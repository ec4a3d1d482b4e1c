"""`python -m tools.reference` writes docs/reference.md from the docstrings of the public names."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import beam_retrain

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"

_ABOUT = """\
# Reference

The public names of `beam_retrain`, written from their docstrings by `python -m tools.reference`. [python.md](python.md)
says how they are used.
"""
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns):")
_ENTRY = re.compile(r"  (\S[^:]*): (.*)")
_METHODS_OF = "beam_retrain.pipelines.library."
_QUOTED = re.compile(r"(: |-> )'([^']*)'")
_FORWARD = re.compile(r"ForwardRef\(('[^']*')\)")


def page() -> str:
  """Returns the page's text."""
  return "\n".join([_ABOUT, *(line for name in beam_retrain.__all__ for line in _describe(name))]).rstrip() + "\n"


def _describe(name: str) -> Iterator[str]:
  found = getattr(beam_retrain, name)
  yield f"## {name}\n"
  yield from _signature(name, found)
  yield from _body(found)
  if inspect.isclass(found) and found.__module__.startswith(_METHODS_OF):
    for method, value in vars(found).items():
      is_method = isinstance(value, property | functools.cached_property) or inspect.isfunction(value)
      if not method.startswith("_") and is_method and inspect.getdoc(value):
        yield f"### {name}.{method}\n"
        yield from _signature(method, value)
        yield from _body(value)


def _signature(name: str, found: object) -> Iterator[str]:
  if callable(found) and not (inspect.isclass(found) and issubclass(found, Exception)):
    text = _QUOTED.sub(r"\1\2", _FORWARD.sub(r"\1", str(inspect.signature(found))))
    text = text.replace("(self, ", "(").replace("(self)", "()")
    yield f"```py\n{name}{text}\n```\n"


def _body(found: object) -> Iterator[str]:
  """Yields a docstring as Markdown: its sections are lists."""
  entry = ""
  for line in [*(inspect.getdoc(found) or "").splitlines(), ""]:
    named = _ENTRY.fullmatch(line)
    if entry and line.startswith("    "):
      entry += f" {line.strip()}"
      continue
    if entry:
      yield entry
      entry = ""
    if section := _SECTION.fullmatch(line):
      yield f"{section[1]}:\n"
    elif named:
      entry = f"- `{named[1]}`: {named[2]}"
    else:
      yield line


if __name__ == "__main__":
  PAGE.write_text(page())
