"""Text in the report's tables can be read on every colour."""

from __future__ import annotations

import re

import pytest

from beam_retrain.reporting.html_tables import HEAT_LEVELS, heat_level, luminance
from tests.html_elements import Element
from tests.reporting.report_suite import night_page, night_sample

__all__ = ["night_page", "night_sample"]  # fixtures


@pytest.mark.parametrize("scheme", [0, 1])
def test_nothing_is_the_paper_and_text_on_the_heat_map_can_be_read(night_page: Element, scheme: int) -> None:
  style = night_page.only("style").text
  colours = re.findall(r"\.h\d { background: (#\w{6}); color: (#\w{6}) }", style)[HEAT_LEVELS * scheme :][:HEAT_LEVELS]
  assert colours[0][0] == re.findall(r"--paper: (#\w{6})", style)[scheme]
  assert len(set(colours)) == HEAT_LEVELS
  brightness = [luminance(_rgb(background)) for background, _ in colours]
  assert brightness == sorted(brightness, reverse=not scheme)
  assert all(_contrast(background, text) >= 4.5 for background, text in colours)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_on_the_page_can_be_read(night_page: Element, scheme: int) -> None:
  colours = dict(
    re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{(.*?)\}", night_page.only("style").text)[scheme])
  )
  for paper in ("paper", "wash"):
    for name in ("ink", "muted", "accent", "good", "bad"):
      assert _contrast(colours[paper], colours[name]) >= 4.5, (paper, name)


def _rgb(colour: str) -> list[float]:
  return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def _contrast(one: str, other: str) -> float:
  """Returns the contrast ratio of WCAG 2.2, 1..21."""
  darker, lighter = sorted(luminance(_rgb(colour)) for colour in (one, other))
  return (lighter + 0.05) / (darker + 0.05)


def test_heat_levels() -> None:
  assert [heat_level(number, 100) for number in (0, 1, 25, 100)] == [0, 1, round(4.5), HEAT_LEVELS - 1]
  assert heat_level(1, 1) < HEAT_LEVELS - 1, "a lone mistake does not look like the worst"
  assert heat_level(1, 10**9) == 1
