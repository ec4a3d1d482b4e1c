"""The report in use: enlarging, sorting, filtering, by mouse and by keyboard, with its script and without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.report_browser_suite import DESK, PHONE, browser, open_page, pages, requests, serious_faults

if TYPE_CHECKING:
  from selenium.webdriver.chrome.webdriver import WebDriver

__all__ = ["browser", "pages"]  # fixtures

_ENLARGED = """
const figure = document.querySelector('figure:target');
if (!figure) return null;
const image = figure.querySelector('img').getBoundingClientRect(), box = figure.getBoundingClientRect();
const width = document.documentElement.clientWidth;
return [figure.id, image.width > 300, box.left <= 0 && box.top <= 0 && box.right >= width];
"""


@pytest.fixture
def without_script(browser: WebDriver) -> Iterator[None]:
  browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
  yield
  browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def _all(browser: WebDriver, selector: str) -> list[Any]:
  return browser.find_elements("css selector", selector)


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_the_keyboard_enlarges_turns_over_and_closes(
  browser: WebDriver, pages: dict[str, str], size: tuple[int, int]
) -> None:
  from selenium.webdriver.common.keys import Keys

  open_page(browser, pages["night"], size)
  first, second = _all(browser, "section[aria-labelledby=m-mistakes] .enlarge")[:2]
  ids = [link.get_attribute("href").split("#")[1] for link in (first, second)]
  browser.execute_script("arguments[0].focus()", first)
  first.send_keys(Keys.ENTER)
  assert browser.execute_script(_ENLARGED) == [ids[0], True, True]
  for key, place in ((Keys.ARROW_RIGHT, 1), (Keys.ARROW_LEFT, 0), (Keys.ARROW_RIGHT, 1)):
    browser.switch_to.active_element.send_keys(key)
    assert browser.execute_script(_ENLARGED) == [ids[place], True, True]
  browser.switch_to.active_element.send_keys(Keys.ESCAPE)
  assert browser.execute_script(_ENLARGED) is None
  assert browser.switch_to.active_element == second
  assert len(requests(browser)) == 1
  assert browser.get_log("browser") == []


def test_a_click_enlarges_and_another_closes(browser: WebDriver, pages: dict[str, str]) -> None:
  open_page(browser, pages["evaluation"])
  link = _all(browser, ".enlarge")[3]
  browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)
  link.click()
  assert browser.execute_script(_ENLARGED)[1:] == [True, True]
  link.click()
  assert browser.execute_script(_ENLARGED) is None


@pytest.mark.usefixtures("without_script")
def test_without_a_script_all_is_there_and_an_image_is_enlarged(browser: WebDriver, pages: dict[str, str]) -> None:
  open_page(browser, pages["night"], PHONE)
  assert not _all(browser, ".tools, th button, .sideways")
  # Nothing is hidden but what a click shows: `details`, and the word that closes an enlarged image.
  hidden = """
    const texts = [...document.querySelectorAll('main *')].filter(element => !element.closest('svg, script, details')
      && [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
    return texts.filter(element => !element.checkVisibility() && element.className !== 'close').map(e => e.outerHTML);
  """
  assert browser.execute_script(hidden) == []
  link = _all(browser, "section[aria-labelledby=m-mistakes] .enlarge")[0]
  browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)
  link.click()
  assert browser.execute_script(_ENLARGED)[1:] == [True, True]
  _all(browser, "figure:target .close")[0].click()
  assert browser.execute_script(_ENLARGED) is None


def test_a_column_is_sorted_by_its_head(browser: WebDriver, pages: dict[str, str]) -> None:
  open_page(browser, pages["night"])
  (head,) = [one for one in _all(browser, "table.labels thead th") if one.text.startswith("recall")]
  rates = (
    "return [...document.querySelectorAll('table.labels tbody tr')].map(row => parseFloat(row.cells[3].textContent))"
  )
  before = browser.execute_script(rates)
  for order in ("ascending", "descending"):
    head.find_element("tag name", "button").click()
    assert browser.execute_script(rates) == sorted(before, reverse=order == "descending")
    assert head.get_attribute("aria-sort") == order
  assert len(set(before)) > 5


def test_what_is_typed_filters_images_and_rows(browser: WebDriver, pages: dict[str, str]) -> None:
  open_page(browser, pages["many"])
  section = "section[aria-labelledby=m-mistakes]"
  browser.find_element("css selector", f"{section} input").send_keys("FOLDER 77 right")
  shown = [one.text for one in _all(browser, f"{section} .label") if one.is_displayed()]
  assert any("folder 77" in text.split("\n")[0] for text in shown)
  assert all("77" in text for text in shown)
  assert not any("taken for" in text for text in shown)
  said = browser.find_element("css selector", f"{section} output").text
  images = _all(browser, f"{section} figure")
  assert said == f"{sum(image.is_displayed() for image in images)} of {len(images)} images"
  browser.find_element("css selector", "section[aria-labelledby=labels] input").send_keys("folder 77")
  rows = [row.text for row in _all(browser, "table.labels tbody tr") if row.is_displayed()]
  assert 0 < len(rows) < 100
  assert all("folder" in row and "77" in row for row in rows)


def test_a_point_of_the_map_leads_to_its_image(browser: WebDriver, pages: dict[str, str]) -> None:
  open_page(browser, pages["night"])
  link = _all(browser, "svg.map a")[0]
  browser.execute_script("arguments[0].focus()", link)
  assert browser.execute_script("return document.activeElement === arguments[0]", link)
  from selenium.webdriver.common.keys import Keys

  browser.switch_to.active_element.send_keys(Keys.ENTER)
  name = browser.execute_script("return arguments[0].textContent", link).strip()
  assert browser.execute_script(_ENLARGED)[1:] == [True, True]
  assert browser.find_element("css selector", "figure:target .file").text in name
  browser.switch_to.active_element.send_keys(Keys.ESCAPE)
  chosen = browser.find_element("css selector", ".tools select")
  chosen.find_elements("tag name", "option")[3].click()
  dim = "return [...document.querySelectorAll('svg.map g')].map(group => getComputedStyle(group).opacity)"
  assert browser.execute_script(dim).count("1") == 1


_IN_PIECES = """
const names = [...document.querySelectorAll('.name, figcaption b, .matrix th span, h3')];
const split = [];
for (const element of names) {
  const side = getComputedStyle(element).writingMode.startsWith('vertical') ? 'left' : 'top';
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());)
    for (const word of node.textContent.matchAll(/[^\\s\\-_\\/]+[\\-_\\/]?/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].map(box => Math.round(box[side])));
      if (lines.size > 1) split.push(word[0]);
    }
}
return [names.length, split];
"""


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_names_break_between_words(browser: WebDriver, pages: dict[str, str], size: tuple[int, int]) -> None:
  open_page(browser, pages["many"], size)
  number, split = browser.execute_script(_IN_PIECES)
  assert number > 300
  assert split == []


def test_a_table_that_goes_on_says_so(browser: WebDriver, pages: dict[str, str]) -> None:
  open_page(browser, pages["night"], PHONE)
  signs = """
    return [...document.querySelectorAll('.scroll')].filter(box => box.checkVisibility()).map(box =>
      [box.scrollWidth > box.clientWidth + 1, box.previousElementSibling.checkVisibility()])
  """
  found = browser.execute_script(signs)
  assert {True, False} == {beyond for beyond, _ in found}
  assert all(beyond == sign for beyond, sign in found)


def test_on_paper_there_is_no_navigation_and_the_tables_are_open(browser: WebDriver, pages: dict[str, str]) -> None:
  open_page(browser, pages["night"], scheme="dark")
  dark = [{"name": "prefers-color-scheme", "value": "dark"}]
  browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
  style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
  assert browser.execute_script(style, "nav", "display") == "none"
  assert browser.execute_script(style, ".tools", "display") == "none"
  assert browser.execute_script(style, "body", "backgroundColor") == "rgb(255, 255, 255)"
  assert browser.execute_script(style, ".scroll", "overflowX") == "visible"
  assert browser.execute_script("return document.querySelector('details table').getBoundingClientRect().height") > 50


@pytest.mark.parametrize(
  ("name", "size", "scheme"),
  [("short", DESK, "light"), ("short", PHONE, "dark"), ("hostile", DESK, "dark")],
)
def test_axe_finds_nothing_serious(
  browser: WebDriver, pages: dict[str, str], name: str, size: tuple[int, int], scheme: str
) -> None:
  open_page(browser, pages[name], size, scheme)
  assert serious_faults(browser) == {}
