"""Nights after a bad one, a slide that a reference stops, new images that are wrong, and the same image twice."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from beam_retrain.pipelines.reevaluate import command as reevaluate

NIGHTS = [f"2026-03-0{day}" for day in range(1, 6)]
FIRST, SECOND, THIRD, FOURTH, FIFTH = NIGHTS
IMAGES = 400


class Told(NamedTuple):
  code: int
  out: str
  err: str


def _metrics(night: Path) -> dict[str, Any]:
  return json.loads((night / "metrics.json").read_text())


def _rows(path: Path) -> list[dict[str, str]]:
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(made: Any) -> Callable[..., Told]:
  def run(data: Path, history: Path, night: str, *more: str) -> Told:
    flags = [f"--model={made.model}", f"--input={data}", f"--history={history}", f"--date={night}"]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
      code = reevaluate.run([*flags, "--max_drop=0.01", *more])
    return Told(code, out.getvalue(), err.getvalue())

  return run


class Nights(NamedTuple):
  """`unseen`: how many images the model was not trained on."""

  data: Path
  history: Path
  told: dict[str, Told]
  unseen: int


def _spoil(data: Path, right: list[str], count: int) -> None:
  """Gives images the bytes of an image of another label; takes them from `right`."""
  donors = {key.split("/")[0]: key for key in right}
  for _ in range(count):
    key = right.pop()
    donor = next(other for label, other in donors.items() if label != key.split("/")[0])
    shutil.copy(data / donor, data / key)


@pytest.fixture(scope="module")
def nights(run: Any, draw_digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Nights:
  """A good night, two that are less than a point worse each, then a bad one, twice.

  Points are of the images that the model was not trained on.
  """
  work = tmp_path_factory.mktemp("bad_nights")
  data, history = work / "data", work / "history"
  draw_digits(data, IMAGES, lambda number, label: f"{label}/{number}.png")
  told = {FIRST: run(data, history, FIRST)}
  unseen = [row for row in _rows(history / FIRST / "predictions.csv") if row["trained_on"] == "False"]
  right = [row["file_name"] for row in unseen if row["prediction_accuracy"] == "True" and row["file_name"][0] != "'"]
  for night, count in ((SECOND, 1), (THIRD, 1), (FOURTH, 12), (FIFTH, 0)):
    _spoil(data, right, count)
    told[night] = run(data, history, night)
    if night == THIRD:
      told["pinned"] = run(
        data, work / "other", THIRD, f"--reference={history / FIRST}", f"--baseline={history / SECOND}"
      )
  return Nights(data, history, told, len(unseen))


def test_the_night_after_a_bad_one_alarms_too(nights: Nights) -> None:
  codes = {night: told.code for night, told in nights.told.items()}
  assert (codes[FIRST], codes[FOURTH], codes[FIFTH]) == (0, 1, 1)
  assert _metrics(nights.history / FIFTH)["comparison"]["baseline"] == THIRD
  assert nights.told[FIFTH].err.startswith(f"compared with {THIRD}, the last night that passed its gates: {FOURTH} did")
  points = f"{100 * 12 / nights.unseen:.2f} percentage points below that of {THIRD}"
  found = f"MISSED: max_drop 1 %: accuracy on the {nights.unseen} images not trained on {points};"
  assert nights.told[FIFTH].out.startswith(found)
  assert FIRST not in nights.told[FOURTH].err  # nothing was skipped


def test_a_slow_slide_passes_but_not_against_a_reference(nights: Nights) -> None:
  assert [nights.told[night].code for night in (SECOND, THIRD)] == [0, 0]
  pinned = nights.told["pinned"]
  night = nights.history.parent / "other" / THIRD
  assert pinned.code == 1
  found = _metrics(night)
  assert (found["gates"]["max_drop"]["state"], found["verdict"]) == ("passed", "missed")
  assert found["gates"]["max_drop_from_reference"]["state"] == "missed"
  assert found["gates"]["max_drop_from_reference"]["value"] == found["reference"]["drop"] == 2 / nights.unseen
  assert found["reference"]["baseline"] == str(nights.history / FIRST)
  assert json.loads((night / "info.json").read_text())["reference"] == str(nights.history / FIRST)
  points = f"{200 / nights.unseen:.2f}"
  sentence = f"{points} percentage points below that of the reference {nights.history / FIRST}"
  measured = f"accuracy on the {nights.unseen} images not trained on {sentence}"
  assert f"gate max_drop_from_reference 1 %: missed ({measured})" in pinned.out
  assert pinned.out.startswith("MISSED: max_drop_from_reference 1 %: ")
  cases = {case.get("name"): case for case in ElementTree.parse(night / "junit.xml").iter("testcase")}
  (failure,) = cases["max_drop_from_reference"]
  assert sentence in failure.get("message", "")
  report = (night / "report.html").read_text()
  assert f"Model against the reference {nights.history / FIRST}" in report.replace("<wbr>", "")
  assert f"drop of {points} points since the reference is above 1 point" in report.replace("\N{NO-BREAK SPACE}", " ")


def test_the_same_bytes_under_two_labels_are_told(nights: Nights) -> None:
  assert _metrics(nights.history / FIRST)["leaks"]["different_labels"] == {"groups": 0, "images": 0}
  assert _rows(nights.history / FIRST / "leaks.csv") == []
  night = nights.history / SECOND
  rows = _rows(night / "leaks.csv")
  assert len({row["sha256"] for row in rows}) == 1
  assert len({row["label"] for row in rows}) == len(rows) == 2
  for row in rows:
    assert (row["kind"], row["split"], row["file_name"].split("/")[0]) == ("different_labels", "all", row["label"])
  assert _metrics(night)["leaks"]["different_labels"] == {"groups": 1, "images": 2}
  words = "1 image has different labels (2 copies)"
  assert f"warning: {words}: see {night / 'leaks.csv'}" in nights.told[SECOND].err
  assert words in (night / "report.html").read_text()
  assert "warning" not in nights.told[FIRST].err


def test_new_images_that_are_wrong_are_the_reason_beside_no_difference(
  nights: Nights, run: Any, draw_digits: Any, tmp_path: Path
) -> None:
  data, history = tmp_path / "data", tmp_path / "history"
  shutil.copytree(nights.history / FIRST, history / FIRST)
  draw_digits(data, IMAGES, lambda number, label: f"{label}/{number}.png")
  right = [row for row in _rows(history / FIRST / "predictions.csv") if row["prediction_accuracy"] == "True"]
  for row in [row for row in right if row["actual_digit"] not in ("ant", "'=cmd")][:36]:
    shutil.copy(data / row["file_name"], data / "ant" / f"new{row['file_name'].replace('/', '')}")
  gone = next(
    row["file_name"] for row in reversed(right) if row["actual_digit"] == "bee" and row["trained_on"] == "False"
  )
  (data / gone).unlink()
  told = run(data, history, SECOND)
  was, both = len(right), IMAGES - 1
  now, total = was - 1, both + 36
  assert told.code == 0
  line = told.out.splitlines()[0]
  both_sides = f"no difference from {FIRST} beyond chance on the {nights.unseen - 1} images of both not trained on"
  changes = f"(0 regressed, 0 fixed, p = 1.00; on all {both}: 0 regressed, 0 fixed)"
  assert line.endswith(f"{both_sides} {changes}, 0 of 36 new images right, 1 of 1 gone images right before")
  before, after, same = (f"{100 * rate:.2f} %" for rate in (was / IMAGES, now / total, now / both))
  sentence = (
    f"he accuracy on all images went from {before} to {after}: unchanged images from {same} to {same} ({now} and {now}"
    f" of {both} right), new images 0.00 % (0 of 36 right), gone images 100.00 % before (1 of 1 right)."
  )
  assert f"model against {FIRST}: t{sentence}" in told.out
  report = (history / SECOND / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
  assert len(re.findall(re.escape(f"T{sentence}"), report)) == 2  # at the top, and at the comparison
  found = _metrics(history / SECOND)["comparison"]
  assert {name: found[name] for name in ("new", "new_correct", "gone", "gone_correct", "changed")} == {
    "new": 36,
    "new_correct": 0,
    "gone": 1,
    "gone_correct": 1,
    "changed": 0,
  }
