"""A browser, headless Chromium driven by Selenium, and reports to open in it.

Where there is no Chromium the tests are skipped, unless BEAM_RETRAIN_REQUIRE_CHROMIUM=1.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from beam_retrain.reporting.html_report import render_report
from tests.report_sample import HOSTILE, Sample, evaluation, night

if TYPE_CHECKING:
  from selenium.webdriver.chrome.webdriver import WebDriver

_FLAGS = (
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
)
PHONE = (390, 844)
DESK = (1400, 900)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
  from selenium import webdriver
  from selenium.webdriver.chrome.service import Service

  chromium = shutil.which("chromium") or shutil.which("google-chrome")
  driver = shutil.which("chromedriver")
  if not chromium or not driver:
    missing = "chromium" if not chromium else "chromedriver"
    if os.environ.get("BEAM_RETRAIN_REQUIRE_CHROMIUM") == "1":
      pytest.fail(f"{missing} is not on the PATH, and BEAM_RETRAIN_REQUIRE_CHROMIUM=1 asks for it")
    pytest.skip(f"{missing} is not on the PATH: install Debian's packages chromium and chromium-driver")
  options = webdriver.ChromeOptions()
  options.binary_location = chromium
  for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
    options.add_argument(flag)
  options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
  started = webdriver.Chrome(options=options, service=Service(driver))
  yield started
  started.quit()


@pytest.fixture(scope="session")
def pages(make_once: Callable[[str, Callable[[Path], object]], Path]) -> dict[str, str]:
  """name -> `file:` address of a report."""

  def make(folder: Path) -> None:
    samples = {
      "evaluation": evaluation(min_accuracy=0.97),
      "night": night(min_accuracy=0.965, max_drop=0.005, min_label_recall=0.93),
      "short": night(number=300, min_accuracy=0.965),
      "hostile": _hostile(),
      "many": night([f"a rather long label of a folder {number}" for number in range(120)], number=2_000),
    }
    for name, sample in samples.items():
      (folder / f"{name}.html").write_text(_render(sample), encoding="utf-8")

  return {path.stem: path.as_uri() for path in make_once("reports", make).glob("*.html")}


def _render(sample: Sample) -> str:
  return render_report(sample.report())


def _hostile() -> Sample:
  sample = night(HOSTILE, number=800, min_accuracy=0.5)
  for kind in sample.images.values():
    for number, image in enumerate(kind):
      image["key"] = f'{HOSTILE[number % len(HOSTILE)]}" onerror="alert(4)" ' + "long" * number
  sample.quarantined = [("x" * 500, name, 1, "EMPTY", name) for name in HOSTILE]
  return sample


def open_page(browser: WebDriver, address: str, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
  width, height = size
  screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
  browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
  features = [{"name": "prefers-color-scheme", "value": scheme}]
  browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
  browser.get("about:blank")
  for kind in ("browser", "performance"):
    browser.get_log(kind)  # what was before does not count
  browser.get(address)


def requests(browser: WebDriver) -> list[str]:
  messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
  urls = [
    message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
  ]
  return [url for url in urls if not url.startswith("data:")]


def serious_faults(browser: WebDriver) -> dict[str, list[str]]:
  """Returns what axe finds serious or critical on the open page: rule -> some elements."""
  import axe_core_python

  browser.execute_script(Path(axe_core_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
  only = "{resultTypes: ['violations']}"
  found = browser.execute_async_script(f"const done = arguments[0]; axe.run({only}).then(found => done(found))")
  assert len(found["passes"]) > 12
  return {
    one["id"]: [node["html"][:200] for node in one["nodes"]][:3]
    for one in found["violations"]
    if one["impact"] in ("serious", "critical")
  }
