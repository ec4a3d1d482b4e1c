"""What a person does with a page of a server: waits, presses keys, looks."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from selenium.webdriver.chrome.webdriver import WebDriver


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
