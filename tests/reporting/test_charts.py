"""The report's charts are tables too, and their text can be read on every colour."""

from __future__ import annotations

import re

import pytest

from beam_retrain.reporting.charts import LEVELS, heat_colours, heat_level, luminance
from tests.html_elements import Element
from tests.report_sample import Sample
from tests.reporting.report_suite import night_page, night_sample, section_of

__all__ = ["night_page", "night_sample"]  # fixtures


def test_each_chart_is_a_table_too(night_sample: Sample, night_page: Element) -> None:
  bins = [row for row in night_sample.metrics["calibration"]["bins"] if row["pictures"]]
  rows = section_of(night_page, "m-calibration").only("details").only("tbody").every("tr")
  assert [row.every("td")[0].text for row in rows] == [f"{row['pictures']:,}" for row in bins]
  nights, recalls = section_of(night_page, "trend").every("details")
  names = [entry["night"] for entry in reversed(night_sample.trend)]
  assert [row.only("th").text for row in nights.only("tbody").every("tr")] == names
  assert [row.only("th").text for row in recalls.only("tbody").every("tr")] == names


def test_the_charts_take_the_colours_of_the_page(night_page: Element) -> None:
  styles = " ".join(
    element.attributes.get("style", "") for chart in night_page.every("svg") for element in chart.below()
  )
  assert "currentColor" in styles
  assert "var(--accent)" in styles
  assert not re.search(r"#0101|#000|#fff", styles)


def test_text_on_the_heat_map_can_be_read() -> None:
  colours = heat_colours()
  assert len(set(colours)) == LEVELS
  brightness = [luminance(_rgb(background)) for background, _ in colours]
  assert brightness == sorted(brightness)
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
  assert [heat_level(number, 100) for number in (0, 1, 25, 100)] == [0, 1, round(4.5), LEVELS - 1]
  assert heat_level(1, 1) < LEVELS - 1, "a lone mistake does not look like the worst"
  assert heat_level(1, 10**9) == 1
