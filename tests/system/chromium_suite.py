"""Headless Chromium, driven by Selenium, for tests of pages that a server gives."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
  from selenium.webdriver.chrome.webdriver import WebDriver

PHONE, DESK = (390, 844), (1400, 900)
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[WebDriver]:
  """Starts a browser; skips where there is none, unless BEAM_RETRAIN_REQUIRE_CHROMIUM=1."""
  from selenium import webdriver
  from selenium.webdriver.chrome.service import Service

  found, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
  if not found or not driver:
    stop = pytest.fail if os.environ.get("BEAM_RETRAIN_REQUIRE_CHROMIUM") == "1" else pytest.skip
    stop("chromium and chromedriver are not on the PATH: install Debian's packages chromium and chromium-driver")
  options = webdriver.ChromeOptions()
  options.binary_location = found
  for flag in (*_FLAGS, f"--user-data-dir={profile}"):
    options.add_argument(flag)
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  started = webdriver.Chrome(options=options, service=Service(driver))
  try:
    yield started
  finally:
    started.quit()


def open_page(browser: WebDriver, address: str, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
  screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
  browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
  features = [{"name": "prefers-color-scheme", "value": scheme}]
  browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
  browser.get("about:blank")
  browser.get_log("browser")  # what was before does not count
  browser.get(address)


def wait_for(browser: WebDriver, script: str) -> Any:
  """Returns what a script returns once that is true."""
  from selenium.webdriver.support.wait import WebDriverWait

  return WebDriverWait(browser, 60, 0.05).until(lambda _: browser.execute_script(script), script)


def press(browser: WebDriver, *keys: str) -> None:
  from selenium.webdriver.common.action_chains import ActionChains

  for key in keys:
    ActionChains(browser, duration=0).send_keys(key).perform()


def shoot(browser: WebDriver, name: str, folder: Path) -> None:
  """Keeps a picture of the whole page, in BEAM_RETRAIN_SCREENSHOTS if that is set."""
  size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
  clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 4_000), "scale": 1}
  shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
  place = Path(os.environ.get("BEAM_RETRAIN_SCREENSHOTS", folder))
  (place / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
