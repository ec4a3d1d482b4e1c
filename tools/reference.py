"""`python -m tools.reference` writes docs/reference.md from the docstrings of the public names."""

from __future__ import annotations

import functools
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import beam_retrain

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"

_ABOUT = """\
# Reference

The public names of `beam_retrain`, written from their docstrings by `python -m tools.reference`. [python.md](python.md)
says how they are used. `AnyImage` is the path of an image file, its bytes, an array, uint8 [H, W] or [H, W, 3], or an
image of PIL; `AnyPath` is str or `pathlib.Path`.
"""
_RETURNED = (
  "beam_retrain.pipelines.library.evaluation:LabelFigures",
  "beam_retrain.transforms.core.metrics.figures:ModelMetrics",
  "beam_retrain.transforms.core.metrics.figures:Accuracies",
  "beam_retrain.transforms.core.records.quarantine:Quarantined",
  "beam_retrain.transforms.sources.read:Separated",
  "beam_retrain.transforms.core.run.stats:Stats",
)
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns):")
_ENTRY = re.compile(r"  (\S[^:]*): (.*)")
_METHODS_OF = "beam_retrain.pipelines.library."
_QUOTED = re.compile(r"(: |-> )'([^']*)'")
_FORWARD = re.compile(r"ForwardRef\(('[^']*')\)")


def page() -> str:
  """Returns the page's text."""
  described = {name: getattr(beam_retrain, name) for name in beam_retrain.__all__}
  described |= {path.partition(":")[2]: pkgutil.resolve_name(path) for path in _RETURNED}
  lines = (line for name, found in described.items() for line in _describe(name, found))
  return "\n".join([_ABOUT, *lines]).rstrip() + "\n"


def _describe(name: str, found: object) -> Iterator[str]:
  yield f"## {name}\n"
  if not hasattr(beam_retrain, name):
    yield "Returned by the above; nobody needs to import it.\n"
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
