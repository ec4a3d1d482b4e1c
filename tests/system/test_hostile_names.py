"""Hostile text in every name that reaches a terminal, a CSV, HTML, JUnit XML or a file name stays text."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import string
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.records.csv_format import csv_text
from beam_retrain.transforms.core.run.output_folder import complete_folder
from tests.conftest import EXACT, DigitsRun
from tests.helpers import read_csv, write
from tests.html_elements import read

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m"
FORGED = "a\nbeam-retrain: PASSED: 100.00 %\r"
REVERSED = "\u202egnp.exe\u2028"
FORMULA = "=cmd|' C'!A0"
ELEMENT = '"><img src=x onerror=alert(1)>'
PATTERN = "a [b]*?\\ c'd\"%41"
NAMES = (ESCAPES, FORGED, REVERSED, FORMULA, ELEMENT, "\t@SUM(1)", "]]>&<b>")
LABELS = (FORMULA, ELEMENT, "]]>&<b>")


class Said(NamedTuple):
  code: int
  out: str
  err: str


class Hostile(NamedTuple):
  """What the commands made below `root`, and what they said."""

  root: Path
  said: dict[str, Said]


def call(*argv: str) -> Said:
  out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = main(list(argv))
  for stream in (out, err):
    stream.flush()
  return Said(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, made: DigitsRun, draw_digits: Callable) -> Hostile:
  root = tmp_path_factory.mktemp("hostile") / f"{PATTERN}{ESCAPES}{FORGED}{REVERSED}"
  keys = [f"{LABELS[number % 3]}/{NAMES[number % 7]}{number}.png" for number in range(84)]
  draw_digits(root / "data", len(keys), lambda number, _: keys[number])
  for name in (f"{ESCAPES}{FORGED}bad.png", os.fsdecode(b"\x1b[2Jcaf\xe9.png")):
    (root / "data" / LABELS[0] / name).write_bytes(b"")
  shutil.copytree(made.data.parent / "trunk", root / f"trunk{ELEMENT}")
  rows = [[key, *NAMES[number % 3 :][:3]] for number, key in enumerate(keys)]
  (root / "slices.csv").write_text(csv_text([["file_name", ELEMENT, FORMULA, ESCAPES], *rows]))
  (root / "labels.txt").write_text("\n".join([f"{ESCAPES}\u202e", ELEMENT, FORMULA]))
  (root / "evil" / f"label{ESCAPES}").mkdir(parents=True)
  (root / "idx").mkdir()
  (root / "idx" / "train-images-idx3-ubyte").write_bytes(b"")
  said: dict[str, Said] = {}
  for step in (_jobs, _single_images, _others):
    said |= {name: call(*argv) for name, argv in step(root, keys)}
  return Hostile(root, said)


def _jobs(root: Path, keys: list[str]) -> Iterator[tuple[str, list[str]]]:
  allowed = ["--max_bad_fraction=0.1"]
  data, bottlenecks, model = (f"{root}/{name}" for name in ("data", "bottlenecks", "model"))
  trunk = [f"--trunk={root}/trunk{ELEMENT}", "--testing_percentage=30", *EXACT]
  yield "bottlenecks", ["bottlenecks", f"--input={data}", f"--output={bottlenecks}", *trunk, *allowed]
  yield (
    "train",
    ["train", f"--input={bottlenecks}", f"--output={model}", "--rounds=3", f"--tflite_output_file={root}/m.tflite"],
  )
  scored = [f"--model={model}", f"--input={data}", f"--manifest={root}/slices.csv", "--min_slice_size=2", *allowed]
  yield "evaluate", ["evaluate", *scored, f"--output={root}/evaluation"]
  for date, gates in (("2026-01-01", []), ("2026-01-02", ["--min_accuracy=1", "--min_label_recall=1"])):
    yield date, ["reevaluate", *scored, f"--history={root}/nights", f"--date={date}", *gates]
  folder = [f"--directory_name={data}", "--process_mode=2", f"--output={root}/labelled"]
  yield "label_image folder", [*_label_image(root), *folder, *allowed]


def _label_image(root: Path) -> list[str]:
  graph = [f"--graph={root}/model/retrained_graph.pb", f"--labels={root}/labels.txt"]
  return ["label_image", *graph, "--input_layer=Placeholder", "--output_layer=final_result"]


def _single_images(root: Path, keys: list[str]) -> Iterator[tuple[str, list[str]]]:
  images = [f"{root}/data/{key}" for key in keys[:7]]
  bad = f"{root}/data/{LABELS[0]}/{ESCAPES}{FORGED}bad.png"
  for form in ("text", "csv", "json"):
    yield f"predict {form}", ["predict", f"--model={root}/model", f"--format={form}", bad, *images]
  with contextlib.chdir(root):
    yield "label_image", [*_label_image(root), f"--image={images[0]}"]
    yield "label_image bad", [*_label_image(root), f"--image={bad}"]
  yield "verify", ["verify", f"--model={root}/model", f"--input={root}/data", "--images=9", "--max_bad_fraction=1"]


def _others(root: Path, keys: list[str]) -> Iterator[tuple[str, list[str]]]:
  """A model from elsewhere, with other labels and settings, and what is refused."""
  pixels = np.zeros((4, 8, 8), np.uint8)
  for name in ("train", "t10k"):
    data = {"images-idx3": encode_idx(pixels), "labels-idx1": encode_idx(np.array([3, 1, 3, 1], np.uint8))}
    write(root / "digits", {f"{name}-{kind}-ubyte": part for kind, part in data.items()})
  yield "convert", ["convert", f"--input={root}/digits", f"--output={root}/converted"]
  shutil.copytree(root / "model", root / "elsewhere")
  info = json.loads((root / "elsewhere" / "info.json").read_text())
  info["labels"] = info["trunk"]["handle"] = f"{ESCAPES}{FORGED}"
  (root / "elsewhere" / "info.json").write_text(json.dumps(info))
  (root / "elsewhere" / "labels.txt").write_text("\n".join([ESCAPES, REVERSED[:-1], FORMULA]) + "\n")
  complete_folder(str(root / "elsewhere"))
  yield "predict elsewhere", ["predict", f"--model={root}/elsewhere", f"{root}/data/{keys[0]}"]
  yield "verify same", ["verify", "--same", f"{root}/model", f"{root}/elsewhere"]
  (root / "evaluation" / "quarantine.csv").write_text(f"{ESCAPES}{FORGED}")
  yield "verify folder", ["verify", f"--folder={root}/evaluation"]
  for name in ("evil", "idx", f"gone{FORGED}{REVERSED}"):
    yield f"refused {name}", ["bottlenecks", f"--input={root}/{name}", f"--output={root}/none"]
  for cells in ((f"data/{keys[0]}", ESCAPES, "training"), (f"{FORGED}\0", "x", ""), (f"data/{keys[0]}", "x", ESCAPES)):
    (root / "images.csv").write_text(csv_text([["file_name", "label", "split"], cells]))
    yield f"manifest {cells}", ["bottlenecks", f"--input={root}/images.csv", f"--output={root}/none"]
  (root / "nights" / f"2026-01-03{ESCAPES}").mkdir()
  more = [f"--model={root}/model", f"--input={root}/data", f"--history={root}/nights"]
  for night in (FORGED, f"2026-01-03{ESCAPES}"):
    yield f"baseline {night}", ["reevaluate", *more, "--date=2026-01-04", f"--baseline={night}"]
  yield "flag", ["train", f"--rounds={ESCAPES}{FORGED}"]
  yield "command", [f"{ESCAPES}{FORGED}"]


def test_the_commands_do_their_work(hostile):
  done = ("bottlenecks", "train", "evaluate", "2026-01-01", "label_image folder", "label_image", "verify", "convert")
  missed = ("2026-01-02", "verify folder")
  bad = ("predict text", "predict csv", "predict json", "label_image bad")
  expected = {**dict.fromkeys(done, 0), **dict.fromkeys(missed, 1), **dict.fromkeys(bad, 3)}
  codes = {name: hostile.said[name].code for name in expected}
  assert codes == expected, hostile.said
  assert hostile.said["predict elsewhere"].code == 0


def test_no_control_character_reaches_a_terminal(hostile):
  for name, said in hostile.said.items():
    for text in (said.out, said.err):
      left = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n"}
      assert not left, (name, left, text)
      assert not [line for line in text.split("\n") if line.startswith("beam-retrain: PASSED")], (name, text)
  assert len(hostile.said["predict text"].out.splitlines()) == 7
  assert "\\x1b]0;owned\\x07" in hostile.said["predict text"].out
  assert "/data/=cmd|' C'!A0/\x1b]0;owned" in json.loads(hostile.said["predict json"].out.splitlines()[0])["file_name"]


def test_no_cell_of_a_csv_is_a_formula(hostile):
  paths = [path for path in hostile.root.rglob("*.csv") if path.name != "slices.csv" or path.parent != hostile.root]
  assert len(paths) > 20
  for path in paths:
    for cell in (cell for row in read_csv(path) for cell in row):
      assert not cell.startswith(("=", "+", "@", "\t", "\r")), (path, cell)
      assert not cell.startswith("-") or float(cell) < 0, (path, cell)


def test_no_name_is_an_element_of_a_report(hostile):
  paths = list(hostile.root.rglob("report.html"))
  assert len(paths) == 3
  for path in paths:
    page = read(path.read_text())
    assert ELEMENT in page.text
    assert not set(page.text) & {"\x1b", "\x9b", "\u202e"}
    elements = page.below()
    assert not [element for element in elements if any(name.startswith("on") for name in element.attributes)]
    assert not [element for element in elements if element.tag in ("iframe", "object")]
    assert ELEMENT not in page.only("script").text
    assert all(element.attributes.get("href", "#").startswith(("#", "data:,")) for element in elements)
    assert all(image.attributes["src"].startswith("data:image/") for image in page.every("img"))


def test_junit_is_well_formed(hostile):
  paths = list(hostile.root.rglob("junit.xml"))
  assert len(paths) == 2
  for path in paths:
    ElementTree.parse(path)
  assert ELEMENT in {case.get("name") for case in ElementTree.parse(max(paths)).iter("testcase")}


def test_each_line_for_prometheus_is_a_sample(hostile):
  paths = list(hostile.root.rglob("metrics.prom"))
  assert len(paths) == 3  # of each night, and of the last
  text = b"".join(path.read_bytes() for path in paths).decode()
  for line in text.removesuffix("\n").split("\n"):  # which alone ends a line there
    assert re.fullmatch(r'# .*|\w+\{(\w+="([^"\\]|\\.)*",?)*\} \S+', line, re.DOTALL), line


def test_no_name_becomes_a_path(hostile):
  assert list(hostile.root.parent.iterdir()) == [hostile.root]
  made = {path.relative_to(hostile.root) for path in hostile.root.rglob("*")}
  names = {path for path in made if not str(path).startswith(("data", "trunk", "evil", "nights/2026-01-03"))}
  assert len(names) > 100
  assert all(set(str(path)) <= {*string.ascii_letters, *string.digits, *"-_./"} for path in names)
