"""What is printed acts on no terminal, and stays on its line."""

from __future__ import annotations

import io
import logging
import sys
import unicodedata

import pytest

from beam_retrain.transforms.core.printing import (
  Level,
  PrintableFormatter,
  as_stage,
  detail,
  level,
  print,
  printable,
  say,
)
from beam_retrain.transforms.core.run.flags import ArgumentParser


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("grey/0.jpg", "grey/0.jpg"),
    ("čeština, 日本語\u3000, में\u200c, 👩\u200d👧, a\\b",) * 2,
    ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
    ("\x9b2J", "\\x9b2J"),
    ("a\nb\r\tc\x7f", "a\\nb\\r\\tc\\x7f"),
    ("a\u2028b\x85", "a\\u2028b\\x85"),
    ("\u202egpj.exe", "\\u202egpj.exe"),
    ("\udcff.jpg", "\\udcff.jpg"),
  ],
)
def test_control_characters_are_escaped_and_nothing_else_is(text, shown):
  assert printable(text) == shown
  assert printable(shown) == shown


def test_every_control_format_and_line_separator_character_is_escaped():
  left = {
    character
    for character in map(chr, range(0x110000))
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and printable(character) == character
  }
  # The joiners, and signs that are drawn: of Arabic, Kaithi, hieroglyphs, shorthand and music.
  assert all(character in "\u200c\u200d\u0890\u0891\u08e2" or character > "\U00010000" for character in left), left


def test_each_value_stays_on_one_line():
  file = io.StringIO()
  print("a\nb", 3, file=file)
  print("first\n", "second", sep="\n", file=file)
  assert file.getvalue() == "a\\nb 3\nfirst\\n\nsecond\n"


def test_what_libraries_log_keeps_its_lines():
  record = logging.LogRecord("beam", logging.WARNING, "", 0, "cannot read %s\n  twice", ("\x1b[2J",), None)
  assert PrintableFormatter().format(record) == "cannot read \\x1b[2J\n  twice"


LEVELS = {"-q": "result|", "": "result|said|", "-v": "result|said|detailed|", "--quiet": "result|"}


@pytest.mark.parametrize("flag", LEVELS)
def test_quiet_leaves_the_result_and_verbose_adds_details(flag, capsys):
  ArgumentParser(prog="command").parse_args([flag] if flag else [])
  print("result", end="|")
  say("said", end="|")
  detail("detailed", end="|")
  assert capsys.readouterr().out == LEVELS[flag]
  with as_stage("beam-retrain run"):
    print("a stage's", end="|")
    print("its error", file=sys.stderr)
  shown = capsys.readouterr()
  assert (shown.out, shown.err) == ("" if LEVELS[flag] == "result|" else "a stage's|", "its error\n")
  ArgumentParser(prog="next").parse_args([])
  assert level() == Level.NORMAL
