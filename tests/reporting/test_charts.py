"""The report's charts are tables too, in the colours of the page."""

from __future__ import annotations

import re

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
