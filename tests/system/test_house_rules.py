"""Rules for the shape of the code: sizes, types at the edges, first lines of docstrings."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_ROOMS = ("pipelines", "transforms", "trainer", "reporting")
_PRODUCT = [path for room in _ROOMS for path in sorted((_ROOT / room).rglob("*.py"))]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

MOST_LINES = 60
MOST_MODULES = 12
MOST_WORDS = 12
# With the aliases. It only ever falls.
MOST_UNTYPED = 24
MOST_TEST_LINES = 400


def _long_functions(source: str) -> list[str]:
  return [
    node.name
    for node in ast.walk(ast.parse(source))
    if isinstance(node, _FUNCTIONS) and (node.end_lineno or 0) - node.lineno >= MOST_LINES
  ]


def _wordy_docstrings(source: str) -> list[str]:
  """Returns the first lines that have too many words."""
  documented = (*_FUNCTIONS, ast.ClassDef, ast.Module)
  texts = [ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
  first = [text.splitlines()[0] for text in texts if text]
  return [line for line in first if len(line.split()) > MOST_WORDS]


def _untyped(source: str) -> int:
  return len(re.findall(r"\b(?:dict|Mapping)\[str, Any\]|\b(?:Json|Entries|View)\b", source))


def _where(check: Callable[[str], list[str]]) -> Iterator[str]:
  assert _PRODUCT, "there is no product to check"
  for path in _PRODUCT:
    yield from (f"{path.relative_to(_ROOT)}: {found}" for found in check(path.read_text()))


def test_the_rules_see_what_breaks_them():
  body = "\n".join(f"  a{number} = 0" for number in range(MOST_LINES))
  assert _long_functions(f"def f():\n{body}\n") == ["f"]
  assert _long_functions(f"def f():\n{body.split(chr(10), 1)[1]}\n") == []
  words = " ".join(["word"] * (MOST_WORDS + 1))
  assert _wordy_docstrings(f'"""Fine."""\ndef f():\n  """{words}\n\n  More."""\n') == [words]
  assert _untyped("def f(a: dict[str, Any], b: Mapping[str, Any], c: Json) -> dict[str, int]: ...") == 3


def test_no_function_is_long():
  assert list(_where(_long_functions)) == []


def test_a_docstring_begins_with_a_short_line():
  assert list(_where(_wordy_docstrings)) == []


def test_no_folder_is_crowded():
  folders = Counter(path.parent.relative_to(_ROOT) for path in _PRODUCT if not path.name.startswith("__"))
  assert {str(folder): count for folder, count in folders.items() if count > MOST_MODULES} == {}


def test_untyped_mappings_stay_at_the_edges():
  found = {str(path.relative_to(_ROOT)): _untyped(path.read_text()) for path in _PRODUCT}
  assert sum(found.values()) <= MOST_UNTYPED, sorted(found.items(), key=lambda item: -item[1])[:10]


def test_no_test_file_is_long():
  lengths = {path.relative_to(_ROOT): len(path.read_text().splitlines()) for path in (_ROOT / "tests").rglob("*.py")}
  assert lengths
  assert {str(path): length for path, length in lengths.items() if length > MOST_TEST_LINES} == {}
