"""Cells that no spreadsheet runs."""

from __future__ import annotations

import itertools

import pytest

from beam_retrain.transforms.core.records.csv_format import escape_cell, escape_once, unescape_cell


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_what_a_spreadsheet_would_run_is_quoted(text):
  assert escape_cell(text) == "'" + text


@pytest.mark.parametrize(
  "text", ["", "training/5/17.jpg", "a=b", "5", "'1", "it's =1", " =1", "é", "a\\b", "a\r\nb", "\\", "r"]
)
def test_everything_else_stays_as_it_is(text):
  assert escape_cell(text) == text


def test_a_carriage_return_is_spelled_out():
  assert escape_cell("odd\rname.jpg") == "odd\\rname.jpg"
  assert escape_cell("\r=1") == "'\\r=1"
  assert escape_cell("odd\\name.jpg\r") == "odd\\name.jpg\\r"


@pytest.mark.parametrize(
  ("text", "cell"), [("a\\rb.jpg", r"a\\rb.jpg"), ("a\\\rb.jpg", r"a\\\rb.jpg"), ("'=1", "''=1"), ("''\r", r"'''\r")]
)
def test_what_looks_like_another_texts_cell_is_told_apart(text, cell):
  assert escape_cell(text) == cell


def test_no_two_texts_have_the_same_cell():
  texts = ["".join(characters) for count in range(7) for characters in itertools.product("\\\rr\n'=", repeat=count)]
  assert len(texts) == 55_987
  assert len(set(map(escape_cell, texts))) == len(texts)
  assert [text for text in texts if unescape_cell(escape_cell(text)) != text] == []


def test_no_cell_starts_a_formula_or_holds_a_bare_carriage_return():
  for characters in itertools.product("\\\rr\n'=", repeat=5):
    cell = escape_cell("".join(characters))
    assert not cell.startswith(("=", "\r"))
    assert "\r" not in cell.replace("\r\n", "")


def test_cells_are_not_escaped_again():
  for text in ("a.jpg", "=1", "'=1", "a\rb", "a\\rb", "\r", "\\\r"):
    assert escape_once(escape_cell(text)) == escape_cell(text)
  assert [escape_once(text) for text in ("=1", "a\rb", "'=1", "a\\rb")] == ["'=1", "a\\rb", "'=1", "a\\rb"]
