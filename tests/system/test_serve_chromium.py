"""The pages of a server as a browser shows them: tried, drawn on, reviewed by keyboard."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers import read_csv, read_json
from tests.system.chromium_suite import press, shoot, wait_for
from tests.system.report_browser_suite import DESK, PHONE, browser, open_page, serious_faults
from tests.system.serve_suite import Served, everything, make_work, served

if TYPE_CHECKING:
  from selenium.webdriver.chrome.webdriver import WebDriver

__all__ = ["browser"]  # a fixture

_MESSAGE = "return document.getElementById('message').textContent"
_LEFT = "return Number(document.getElementById('left').textContent.split(' ')[0])"


@pytest.fixture(scope="module")
def work(make_once: Callable, mnist_folder: Path) -> Path:
  return make_once("served", lambda folder: make_work(mnist_folder, folder))


@pytest.fixture(scope="module")
def server(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
  """Serves everything; nothing is decided."""
  with served(*everything(work), cwd=tmp_path_factory.mktemp("here")) as one:
    yield one


def _open_review(browser: WebDriver, server: Served) -> int:
  """Opens the page; returns how many images are left."""
  open_page(browser, f"{server.address}/review")
  return int(wait_for(browser, _LEFT))


def test_a_dropped_image_gets_a_label_and_its_nearest_images(browser: WebDriver, server: Served, work: Path) -> None:
  path = next((work / "data" / "3").iterdir())
  open_page(browser, f"{server.address}/")
  data = base64.b64encode(path.read_bytes()).decode()
  browser.execute_script(
    """
    const bytes = Uint8Array.from(atob(arguments[0]), one => one.charCodeAt(0)), dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], "three.png", { type: "image/png" }));
    const event = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
    document.getElementById("drop").dispatchEvent(event);
    """,
    data,
  )
  label = wait_for(browser, "return document.querySelector('.result h2')?.textContent")
  (row,) = server.predict({"x": path.read_bytes()})["predictions"]
  assert label == row["label"]
  bars = browser.execute_script("return [...document.querySelectorAll('.bars .label')].map(one => one.textContent)")
  assert bars == row["top_labels"]
  loaded = "return [...document.querySelectorAll('.tiles img')].filter(one => one.complete && one.naturalWidth).length"
  wait_for(browser, f"{loaded.replace('return', 'return 12 ===')}")
  browser.find_element("id", "files").send_keys(f"{path}\n{__file__}")
  wait_for(browser, "return document.querySelectorAll('.result .bars').length === 2")
  assert browser.get_log("browser") == []


def _drag(browser: WebDriver, *points: tuple[int, int]) -> None:
  from selenium.webdriver.common.action_chains import ActionChains

  canvas = browser.find_element("id", "canvas")
  actions = ActionChains(browser, duration=5)
  (x, y), *others = points
  actions.move_to_element_with_offset(canvas, x - 140, y - 140).click_and_hold()
  for x, y in others:
    actions.move_to_element_with_offset(canvas, x - 140, y - 140)
  actions.release().perform()


_DRAWN = """
const made = document.createElement("canvas"), image = document.querySelector(".result img");
Object.assign(made, { width: image.naturalWidth, height: image.naturalHeight });
const context = made.getContext("2d");
context.drawImage(image, 0, 0);
const data = context.getImageData(0, 0, made.width, made.height).data, rows = [];
for (let y = 0; y < made.height; y++) rows.push([...Array(made.width).keys()].map(x => data[4 * (y * made.width + x)]));
return rows;
"""


def test_a_drawn_7_is_a_7_as_mnist_has_it(browser: WebDriver, server: Served) -> None:
  import numpy as np

  open_page(browser, f"{server.address}/")
  _drag(browser, (40, 60), (150, 60), (110, 150), (90, 230))
  assert wait_for(browser, "return document.querySelector('.result h2')?.textContent") == "7"
  pixels = np.array(browser.execute_script(_DRAWN), float)
  assert pixels.shape == (28, 28)
  rows, columns = np.nonzero(pixels)
  assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
  centre = [(np.arange(28) + 0.5) @ pixels.sum(axis=axis) / pixels.sum() for axis in (0, 1)]
  assert centre == pytest.approx([14, 14], abs=0.5)


def test_a_1_is_drawn_by_keyboard_alone(browser: WebDriver, server: Served) -> None:
  from selenium.webdriver.common.keys import Keys

  open_page(browser, f"{server.address}/")
  while browser.execute_script("return document.activeElement.id") != "canvas":
    press(browser, Keys.TAB)
  press(browser, *[Keys.ARROW_UP] * 9, Keys.SPACE, *[Keys.ARROW_DOWN] * 18)
  assert wait_for(browser, "return document.querySelector('.result h2')?.textContent") == "1"


def test_ten_mistakes_are_reviewed_by_keyboard_through_a_kill(browser: WebDriver, work: Path, tmp_path: Path) -> None:
  from selenium.webdriver.common.keys import Keys

  file, flags = tmp_path / "corrections.csv", everything(work)
  with served(*flags, cwd=tmp_path) as first:
    left = _open_review(browser, first)
    assert left > 12
    items = first.ask("/review/items").json["items"]
    press(browser, "k", "x", "u", "p")
    wait_for(browser, f"{_LEFT} === {left - 4}")
    press(browser, "r")
    wait_for(browser, "return document.getElementById('relabel').open")
    press(browser, "8", Keys.ENTER)
    wait_for(browser, f"{_LEFT} === {left - 5}")
    for key, decided in {"k": 6, "z": 5, "x": 6}.items():
      press(browser, key)
      wait_for(browser, f"{_LEFT} === {left - decided}")
    first.process.kill()
    first.process.wait()
    before = file.read_bytes()
    press(browser, "k")
    wait_for(browser, f"{_MESSAGE}.startsWith('The server does not answer')")
    assert file.read_bytes() == before
  with served(*flags, cwd=tmp_path, port=first.port):
    press(browser, "k", "k", "k", "k")
    wait_for(browser, f"{_LEFT} === {left - 10}")
    assert browser.execute_script(_MESSAGE) == ""
  header, *rows = read_csv(file)
  assert header == ["file_name", "sha256", "label_was", "label", "decision", "note"]
  assert [row[0] for row in rows] == [item["key"] for item in items[:10]]
  assert [row[4] for row in rows] == ["keep", "drop", "unsure", "relabel", "relabel", "drop", *["keep"] * 4]
  assert [row[3] for row in rows[:6]] == [items[0]["label"], "", "", items[3]["predicted"], "8", ""]


def test_what_was_reviewed_is_evaluated_again(browser: WebDriver, work: Path, tmp_path: Path) -> None:
  """By keyboard: one relabelled as predicted, one dropped, one kept; then `evaluate --corrections` and its report."""
  from beam_retrain.pipelines.cli import main

  with served(*everything(work), cwd=tmp_path) as one:
    left = _open_review(browser, one)
    mistakes = sum("mistakes" in item["kinds"] for item in one.ask("/review/items").json["items"])
    press(browser, "p", "x", "k")
    wait_for(browser, f"{_LEFT} === {left - 3}")
  output = tmp_path / "corrected"
  given = (f"--model={work / 'model'}", f"--input={work / 'bottlenecks'}", "--split=all", f"--output={output}")
  assert main(["evaluate", *given, f"--corrections={tmp_path / 'corrections.csv'}"]) == 0
  before, now = (read_json(folder / "metrics.json") for folder in (work / "evaluation", output))
  assert (now["total"], now["correct"]) == (before["total"] - 1, before["correct"] + 1)
  assert [now["corrections"][name] for name in ("relabelled", "dropped")] == [1, 1]
  assert now["corrections"]["without"]["correct"] == before.get("unseen", before)["correct"]
  assert read_json(output / "stats.json")["corrections"] == {"relabelled": 1, "dropped": 1, "gone": 0, "changed": 0}
  open_page(browser, f"file://{output / 'report.html'}")
  assert "1 label corrected and 1 image left out: accuracy" in browser.find_element("tag name", "header").text
  flags = [flag.replace(str(work / "evaluation"), str(output)) for flag in everything(work)]
  with served(*flags, cwd=tmp_path) as again:
    items = again.ask("/review/items").json["items"]
  assert sum("mistakes" in item["kinds"] for item in items) == mistakes - 2


def test_two_pages_at_once_overwrite_nothing(browser: WebDriver, work: Path, tmp_path: Path) -> None:
  with served(*everything(work), cwd=tmp_path) as one:
    left = _open_review(browser, one)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle
    _open_review(browser, one)
    press(browser, "x")
    wait_for(browser, f"{_LEFT} === {left - 1}")
    browser.switch_to.window(first)
    browser.execute_script("document.getElementById('left').textContent = 'x'")
    refused = one.ask("/review/decide", json.dumps(_decision(one, 0, "keep")))
    assert refused.status == 409
    assert refused.json["decisions"]["0"]["decision"] == "drop"
    assert [one.ask("/review/decide", json.dumps(_decision(one, 1, what))).status for what in ("keep", "drop")] == [
      200,
      409,
    ]
    wait_for(browser, f"{_LEFT} === {left - 2}")  # of itself
    browser.switch_to.window(second)
    browser.close()
    browser.switch_to.window(first)
  assert [row[4] for row in read_csv(tmp_path / "corrections.csv")[1:]] == ["drop", "keep"]


def _decision(server: Served, item: int, decision: str) -> dict[str, object]:
  sha256 = server.ask("/review/items").json["items"][item]["sha256"]
  return {"item": item, "sha256": sha256, "decision": decision, "seen": None}


def test_the_grid_is_walked_with_the_arrows(browser: WebDriver, server: Served) -> None:
  from selenium.webdriver.common.keys import Keys

  _open_review(browser, server)
  items = server.ask("/review/items").json["items"]
  assert {kind for item in items for kind in item["kinds"]} == {"mistakes", "suspicious", "near-duplicates"}
  assert {server.ask(f"/images/{item['image']}?small=1").status for item in items} == {200}
  press(browser, "g")
  focused = "return [...document.querySelectorAll('.tile')].indexOf(document.activeElement)"
  wait_for(browser, f"{focused} === 0")
  press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
  wait_for(browser, f"{focused} === 1")
  press(browser, Keys.ARROW_DOWN)
  wait_for(browser, f"{focused} > 4")
  press(browser, Keys.ENTER)
  wait_for(browser, "return !document.getElementById('one').hidden && document.querySelector('#one h2')")


def test_the_nights_show_what_got_worse(browser: WebDriver, server: Served) -> None:
  open_page(browser, f"{server.address}/nights")
  shown = "return [...document.querySelectorAll('tbody th')].map(one => one.textContent)"
  assert browser.execute_script(shown) == ["2026-11-02", "2026-11-01"]
  assert browser.execute_script("return document.querySelectorAll('.trend circle').length") == 2
  open_page(browser, f"{server.address}/nights/2026-11-02")
  assert "missed" in browser.find_element("tag name", "h1").text
  gone = "return document.querySelectorAll('.regressed figure').length - document.querySelectorAll('.gone').length"
  assert browser.execute_script(gone) == 3
  assert browser.get_log("browser") == []
  open_page(browser, f"{server.address}/nights/2026-11-02/report")
  assert browser.find_element("tag name", "h1").text
  assert not [entry for entry in browser.get_log("browser") if "Content Security" in entry["message"]]


_PAGES = {"try": "/", "review": "/review", "nights": "/nights", "night": "/nights/2026-11-02", "api": "/api"}
_PAGES |= {"login": "/login"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK])
@pytest.mark.parametrize("name", _PAGES)
def test_no_page_scrolls_sideways_or_complains(
  browser: WebDriver, server: Served, work: Path, tmp_path: Path, name: str, size: tuple[int, int], scheme: str
) -> None:
  open_page(browser, f"{server.address}{_PAGES[name]}", size, scheme)
  if name == "try":
    browser.find_element("id", "files").send_keys(str(next((work / "data" / "5").iterdir())))
    wait_for(browser, "return document.querySelectorAll('.tiles img').length === 12")
  elif name == "review":
    wait_for(browser, "return document.querySelectorAll('#one .tiles img').length > 10")
  wait_for(browser, "return [...document.images].every(image => image.complete || image.loading === 'lazy')")
  assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
  paper = "return getComputedStyle(document.body).backgroundColor"
  assert browser.execute_script(paper) == {"light": "rgb(255, 255, 255)", "dark": "rgb(19, 22, 25)"}[scheme]
  assert serious_faults(browser) == {}
  assert browser.get_log("browser") == []
  shoot(browser, f"{name}-{size[0]}-{scheme}", tmp_path)
