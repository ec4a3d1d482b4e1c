"""Finds words and sentences that CONTRIBUTING.md's English does not have.

Reads the pages, and the docstrings and comments of the product. Vale would do the same; it comes as a program that has
to be downloaded, and knows no Python.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/*.md", "deploy/*.md")
ROOMS = ("pipelines", "transforms", "trainer", "reporting")
MOST_WORDS = 60
"""Of one sentence. Half as many are better."""

STYLE: tuple[tuple[str, str], ...] = (
  (r"(?<![-_\"\w])(?<!identical )pictures?\b", "image"),
  (r"\b(is|are|was|were|be) (told|said|asked|given back|looked at)\b", "say who does it: reports, prints, warns"),
  (r"\bwhat is (said|kept|chosen|told|brought|asked)\b", "name the thing"),
  (r"\b(brings?|brought) (it|them|back|home)\b", "downloads, copies"),
  (r"\bkept from\b", "hidden from, or captured"),
  (r"\bin vain\b", "without success"),
  (r"\bat rest\b", "paused"),
  (r"\bgoes? (for|by) nothing\b", "is ignored"),
  (r"\bnobody's\b", "none"),
  (r"\b(who|one that) has died\b", "a dead process"),
  (r"\bas (it|they|this \w+) (has|have) it\b", "leave it out"),
  (r"\b(thereof|whereof|whereby|herein|hereby|thereto)\b", "of it, by which, here"),
  (r"\bwhere memory is short\b", "after an out-of-memory error"),
  (r"\bwhat .{1,40} says? of itself\b", "its report"),
  (r"\bthe life of\b", "name what happens"),
)
"""Pattern -> what to write instead. The first column of CONTRIBUTING.md's examples is caught by it; see the tests."""

_FIRST_WORDS = re.compile(r"(What|How|Who|That) (?!to )")


class Found(NamedTuple):
  line: int
  words: str
  advice: str


def check(text: str, first_line: int = 1) -> Iterator[Found]:
  """Yields what the style does not have, in Markdown or in plain text."""
  text = re.sub(r"```.*?```|`[^`\n]*`", lambda code: re.sub(r"[^\n]", "`", code[0]), text, flags=re.DOTALL)
  for pattern, advice in STYLE:
    for match in re.finditer(pattern, text, re.IGNORECASE):
      yield Found(first_line + text.count("\n", 0, match.start()), match[0], advice)
  for match in re.finditer(r"(?:[^.!?:;|\n]|\n(?!\n|[-*|#]))+", text):
    if sum(word[0].islower() for word in match[0].split()) > MOST_WORDS:
      line = first_line + text.count("\n", 0, match.start())
      yield Found(line, f"{match[0].strip()[:40]}...", f"more than {MOST_WORDS} words: make two sentences")


def check_python(source: str) -> Iterator[Found]:
  """Yields what the style does not have in docstrings, comments and messages."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef) and (match := _FIRST_WORDS.match(ast.get_docstring(node) or "")):
      yield Found(node.lineno, match[0], "begin with a verb: Returns, Writes, Checks")
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(" ") > 2:
      yield from check(node.value, node.lineno)
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      yield from check(token.string, token.start[0])


def main() -> int:
  pages = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
  modules = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
  count = 0
  for path in (*pages, *modules):
    for found in (check_python if path.suffix == ".py" else check)(path.read_text()):
      count += 1
      print(f"{path.relative_to(ROOT)}:{found.line}: {found.words!r}: {found.advice}")
  return 1 if count else 0


if __name__ == "__main__":
  sys.exit(main())
