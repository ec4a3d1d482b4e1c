"""The report as a browser shows it: its size, its links, its colours.

With BEAM_RETRAIN_SCREENSHOTS=DIR what the tests saw is kept, for people to look at.
"""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.system.report_browser_suite import DESK, PHONE, browser, open_page, pages, requests

if TYPE_CHECKING:
  from selenium.webdriver.chrome.webdriver import WebDriver

__all__ = ["browser", "pages"]  # fixtures


@pytest.mark.parametrize("name", ["evaluation", "night", "hostile", "many"])
def test_it_loads_with_no_request_and_no_complaint(browser: WebDriver, pages: dict[str, str], name: str) -> None:
  open_page(browser, pages[name])
  assert browser.execute_script("return document.readyState") == "complete"
  assert requests(browser) == [pages[name]]
  assert browser.get_log("browser") == []
  broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).length"
  assert browser.execute_script("return document.images.length") > 10
  assert browser.execute_script(broken) == 0


def test_what_hostile_names_ask_for_is_not_done(browser: WebDriver, pages: dict[str, str]) -> None:
  from selenium.common.exceptions import NoAlertPresentException

  open_page(browser, pages["hostile"])
  with pytest.raises(NoAlertPresentException):
    _ = browser.switch_to.alert
  assert browser.execute_script("return document.scripts.length") == 1
  assert browser.execute_script("return document.querySelectorAll('[onerror]').length") == 0


def test_the_policy_of_the_page_forbidsrequests(browser: WebDriver, pages: dict[str, str]) -> None:
  open_page(browser, pages["evaluation"])
  add = "const image = new Image(); image.onerror = () => done(1); image.src = 'http://127.0.0.1:9/x.png'"
  browser.execute_async_script(f"const done = arguments[0]; {add}")
  (complaint,) = browser.get_log("browser")
  assert "Content Security Policy" in complaint["message"]
  messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
  failed = [message["params"] for message in messages if message["method"] == "Network.loadingFailed"]
  assert [params["blockedReason"] for params in failed] == ["csp"]


_TARGET_SEEN = """
const target = document.getElementById(location.hash.slice(1)), box = target.getBoundingClientRect();
return [target.matches(':target'), box.top >= 0 && box.top < innerHeight && box.bottom > 0];
"""


def _cell_links(browser: WebDriver, prefix: str) -> list[Any]:
  return browser.find_elements("css selector", f"section[aria-labelledby={prefix}-matrix] .matrix td a")


_CLICKED = [("evaluation", "m"), ("night", "c"), ("hostile", "m"), ("many", "c")]


@pytest.mark.parametrize(("name", "prefix"), _CLICKED)
def test_a_click_on_a_cell_leads_to_its_images(
  browser: WebDriver, pages: dict[str, str], name: str, prefix: str
) -> None:
  open_page(browser, pages[name])
  links = _cell_links(browser, prefix)
  assert len(links) > 5
  for link in (links[0], links[len(links) // 2], links[-1]):
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", link)
    link.click()
    assert browser.execute_script("return location.hash") == f"#{link.get_attribute('href').split('#')[1]}"
    assert browser.execute_script(_TARGET_SEEN) == [True, True]
  assert len(requests(browser)) == 1


def test_the_keyboard_reaches_a_cell_and_enter_shows_its_images(browser: WebDriver, pages: dict[str, str]) -> None:
  from selenium.webdriver.common.keys import Keys

  open_page(browser, pages["evaluation"])
  focused = "return document.activeElement"
  browser.find_element("tag name", "body").send_keys(Keys.TAB)
  assert browser.execute_script(f"{focused}.className") == "skip"
  assert browser.execute_script(f"{focused}.getBoundingClientRect().left") >= 0, "the skip link shows when it has focus"
  browser.switch_to.active_element.send_keys(Keys.ENTER)
  first = _cell_links(browser, "m")[0]
  for _ in range(60):
    browser.switch_to.active_element.send_keys(Keys.TAB)
    if browser.switch_to.active_element == first:
      break
  assert browser.switch_to.active_element == first
  outline = browser.execute_script("const style = getComputedStyle(document.activeElement); return style.outlineStyle")
  assert outline == "solid"
  first.send_keys(Keys.ENTER)
  assert browser.execute_script(_TARGET_SEEN) == [True, True]


def test_a_cell_with_the_focus_is_not_behind_the_labels(browser: WebDriver, pages: dict[str, str]) -> None:
  open_page(browser, pages["many"], PHONE)
  hidden = """
    const hidden = link => {
      link.focus();
      const box = link.getBoundingClientRect(), label = link.closest("tr").firstElementChild.getBoundingClientRect();
      return box.left + box.width / 2 < label.right;
    };
    const links = [...document.querySelectorAll("section[aria-labelledby=c-matrix] .matrix td a")];
    return [...links, ...links.reverse()].filter(hidden).length;
  """
  assert browser.execute_script(hidden) == 0


@pytest.mark.parametrize("name", ["evaluation", "night", "hostile", "many"])
@pytest.mark.parametrize("width", [PHONE[0], DESK[0]])
def test_the_page_itself_never_scrolls_sideways(
  browser: WebDriver, pages: dict[str, str], name: str, width: int
) -> None:
  open_page(browser, pages[name], (width, 844))
  browser.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")
  assert browser.execute_script("return document.documentElement.scrollWidth") <= width
  wide = "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg, .skip, .past, .close')"
  beyond = f"{wide} && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
  assert browser.execute_script(beyond) == []


@pytest.mark.parametrize("name", ["evaluation", "night", "hostile"])
def test_a_phone_shows_what_the_gates_measured(browser: WebDriver, pages: dict[str, str], name: str) -> None:
  open_page(browser, pages[name], PHONE)
  hidden = """
    const box = document.querySelector(".gates").parentElement;
    const ends = element => element.getBoundingClientRect();
    const beyond = cell => ends(cell).right > Math.min(ends(box).right, innerWidth) + 1 || ends(cell).left < 0;
    const beside = row => ends(row.querySelector(".measured")).top < ends(row.querySelector("th")).bottom;
    const cells = [...box.querySelectorAll("tbody th, tbody td")], rows = [...box.querySelectorAll("tbody tr")];
    return [box.scrollWidth > box.clientWidth, cells.filter(beyond).length, rows.filter(beside).length, rows.length];
  """
  gates = 2 if name == "evaluation" else 6
  assert browser.execute_script(hidden) == [False, 0, 0, gates]
  shorten = "document.querySelectorAll('.measured').forEach(cell => cell.textContent = 'x')"
  assert browser.execute_script(f"{shorten};{hidden}") == [False, 0, 0, gates]


@pytest.mark.parametrize("size", [PHONE, DESK])
@pytest.mark.parametrize("name", ["evaluation", "night", "many"])
def test_links_in_tables_are_large_enough_for_a_thumb(
  browser: WebDriver, pages: dict[str, str], name: str, size: tuple[int, int]
) -> None:
  open_page(browser, pages[name], size)
  heights = browser.execute_script(
    "return [...document.querySelectorAll('table a')].map(link => link.getBoundingClientRect().height)"
  )
  assert len(heights) > 10
  assert min(heights) >= 24


@pytest.mark.parametrize(
  ("name", "size", "scheme", "paper"),
  [
    ("evaluation", DESK, "light", (255, 255, 255)),
    ("evaluation", PHONE, "dark", (19, 22, 25)),
    ("night", DESK, "dark", (19, 22, 25)),
    ("night", PHONE, "light", (255, 255, 255)),
    ("many", DESK, "light", (255, 255, 255)),
    ("hostile", PHONE, "light", (255, 255, 255)),
  ],
)
def test_screenshots(
  browser: WebDriver,
  pages: dict[str, str],
  tmp_path: Path,
  name: str,
  size: tuple[int, int],
  scheme: str,
  paper: tuple[int, int, int],
) -> None:
  open_page(browser, pages[name], size, scheme)
  height = min(browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]["height"], 6_000)
  clip = {"x": 0, "y": 0, "width": size[0], "height": height, "scale": 1}
  shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
  encoded = base64.b64decode(shot["data"])
  folder = Path(os.environ.get("BEAM_RETRAIN_SCREENSHOTS", tmp_path))
  (folder / f"{name}-{size[0]}-{scheme}.png").write_bytes(encoded)
  image = Image.open(io.BytesIO(encoded)).convert("RGB")
  assert image.width == size[0]
  colours = image.getcolors(2**24)
  assert colours is not None
  assert max(colours)[1] == paper, "most of the page is paper"
  assert len(colours) > 100
