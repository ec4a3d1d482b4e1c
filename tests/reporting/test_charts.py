"""The report's charts are tables too, in the colours of the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.helpers import ROOT
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


def test_without_a_home_to_write_to_charts_say_nothing(tmp_path):
  code = (
    "from beam_retrain.reporting import charts\n"
    "from beam_retrain.transforms.core.system.scratch import own_temporary_files\n"
    "from beam_retrain.transforms.core.metrics.figures import CalibrationBin\n"
    f"with own_temporary_files({str(tmp_path / 'output')!r}):\n"
    "  print(charts.reliability([CalibrationBin(0.9, 1.0, 4, 3, 0.95, 0.75)], 'bins', 'one'))\n"
  )
  environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL"))}
  environment |= {"HOME": "/proc/nobody", "TMPDIR": str(tmp_path)}
  ended = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=True
  )
  assert "<svg" in ended.stdout
  assert ended.stderr == ""
  assert not os.listdir(tmp_path)
