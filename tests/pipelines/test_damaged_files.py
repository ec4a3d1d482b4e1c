"""Each small file of a finished folder damaged in turn: the next command names it, or gives what it gave."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_retrain.pipelines.cli import main

# Those of 0.4 have no list of their files, so that the readers themselves have to notice.
_OLD = Path(__file__).parents[1] / "fixtures" / "0.4"


def make_folder(path: Path) -> None:
  path.unlink()
  path.mkdir()


def flip(path: Path) -> None:
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x80  # no UTF-8 any more
  path.write_bytes(data)


_DAMAGES: dict[str, Callable[[Path], object]] = {
  "emptied": lambda path: path.write_bytes(b""),
  "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
  "a byte flipped": flip,
  "a folder": make_folder,
  "missing": Path.unlink,
  "a list": lambda path: path.write_text("[1, NaN]\n"),
  "a number": lambda path: path.write_text("1\n"),
  "other types": lambda path: path.write_text(path.read_text().replace('": ', '": [NaN], "was ')),
}
_TEXTS = (".json", ".txt", ".csv")
_COMMANDS: dict[str, tuple[list[str], dict[str, str]]] = {
  "train": (
    ["--input=0.4/bottlenecks", "--output=out", "--rounds=1"],
    {
      "bottlenecks/info.json": "info.json",
      "bottlenecks/labels.txt": "labels.txt",
      "bottlenecks/stats.json": "stats.json",
      "bottlenecks/transform/transform_fn/saved_model.pb": "transform",
      "bottlenecks/trunk/saved_model.pb": "bottlenecks/trunk",
    },
  ),
  "predict": (
    ["--model=0.4/model", "0.4/pictures"],
    {
      "model/info.json": "info.json",
      "model/labels.txt": "labels.txt",
      "model/head.npz": "head.npz",
      "model/trunk/prepared/card.json": "card.json",
      "model/trunk/prepared/graph.pb": "graph.pb",
    },
  ),
  "bottlenecks": (
    ["--input=0.4/convert", "--trunk=0.4/trunk", "--output=out"],
    {
      "convert/info.json": "",  # its JPGs are class folders, too
      "convert/labels.txt": "labels.txt",
      "convert/stats.json": "",
    },
  ),
  "reevaluate": (
    ["--model=0.4/model", "--input=0.4/pictures", "--history=out", "--baseline=0.4/evaluation"],
    {
      "evaluation/info.json": "0.4/evaluation",
      "evaluation/metrics.json": "metrics.json",
      "evaluation/predictions.csv": "predictions.csv",
      "evaluation/stats.json": "",
    },
  ),
  "export": (
    ["--input=0.4/evaluation", "--output=out"],
    {
      "evaluation/info.json": "0.4/evaluation",
      "evaluation/metrics.json": "metrics.json",
      "evaluation/predictions.csv": "predictions.csv",
    },
  ),
}
_CASES = [(command, path) for command, (_, paths) in _COMMANDS.items() for path in paths]


@pytest.mark.parametrize(("command", "path"), _CASES)
def test_a_damaged_file_is_one_sentence_that_names_it(command, path, tmp_path, monkeypatch, capfd):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(_OLD, "0.4")
  arguments, paths = _COMMANDS[command]
  place, whole, wrong = Path("0.4", path), Path("whole"), []
  shutil.copy(place, whole)
  # Where a file is only read for a hint, one damage stands for all: a whole job is seconds.
  for name in _DAMAGES if paths[path] else ["other types"]:
    if place.suffix not in _TEXTS and name == "other types":
      continue
    _DAMAGES[name](place)
    code, shown = main([command, *arguments]), capfd.readouterr().err
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    shutil.copy(whole, place)
    said = [line for line in shown.splitlines() if line.startswith("beam-retrain: ")]
    if code == 0:
      continue
    named = len(said) == 1 and (paths[path] or path) in said[0] and said[0].endswith(".")
    if code != 2 or not named or "the job failed" in shown or "Traceback" in shown:
      wrong.append(f"{name}: {code} {shown}")
  assert not wrong, "\n".join(wrong)
