"""Cells that no spreadsheet runs."""

from __future__ import annotations

import pytest

from transforms.core.csv_cells import escape_cell


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_what_a_spreadsheet_would_run_is_quoted(text):
  assert escape_cell(text) == "'" + text


@pytest.mark.parametrize("text", ["", "training/5/17.jpg", "a=b", "5", "'=1", " =1", "é"])
def test_everything_else_stays_as_it_is(text):
  assert escape_cell(text) == text


def test_a_carriage_return_is_spelled_out():
  assert escape_cell("odd\rname.jpg") == "odd\\rname.jpg"
  assert escape_cell("\r=1") == "'\\r=1"
