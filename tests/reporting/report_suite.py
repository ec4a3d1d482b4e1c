"""Pages of the sample nights, and their sections."""

from __future__ import annotations

import pytest

from beam_retrain.reporting.html_report import render_report
from tests.html_elements import Element, read
from tests.report_sample import Sample, night


def render(sample: Sample) -> str:
  return render_report(sample.report())


@pytest.fixture(scope="module")
def night_sample() -> Sample:
  return night(min_accuracy=0.965, max_drop=0.02, min_label_recall=0.93)


@pytest.fixture(scope="module")
def night_page(night_sample: Sample) -> Element:
  return read(render(night_sample))


def section_of(page: Element, name: str) -> Element:
  return page.only("section", aria_labelledby=name)


def has_section(page: Element, name: str) -> bool:
  return bool(page.every("section", aria_labelledby=name))


def cells_of(row: Element) -> list[Element]:
  return [child for child in row.children if isinstance(child, Element) and child.tag in ("td", "th")]
