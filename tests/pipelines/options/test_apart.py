"""No command writes into what it reads, or around it, by whatever name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beam_retrain.pipelines.cli import main
from tests.conftest import DigitsRun
from tests.helpers import file_contents, write

# Each command with folders that exist, and what each of its outputs must be apart from.
_READS = {
  "convert": ["input"],
  "bottlenecks": ["input", "trunk", "reuse"],
  "train": ["input"],
  "evaluate": ["model", "input", "reuse", "manifest"],
  "reevaluate": ["model", "candidate", "input", "manifest", "reuse"],
}
_PLACES = ("in it", "in a link to it", "around it", "it")
_CASES = [
  (command, name, where)
  for command, names in _READS.items()
  for name in names
  for where in (_PLACES[2:] if name == "manifest" else _PLACES)  # nothing can be in a file
]


@pytest.fixture
def given(made: DigitsRun, tmp_path: Path) -> dict[str, Path]:
  """Returns what could be written into: links, which are to lead to nothing else."""
  write(tmp_path, {"idx/train-images-idx3-ubyte": b"", "slices/slices.csv": b"file_name,writer\n"})
  return {
    "convert": tmp_path / "idx",
    "input": made.data,
    "trunk": made.data.parent / "trunk",
    "reuse": made.bottlenecks,
    "train": made.bottlenecks,
    "model": made.model,
    "candidate": made.model,
    "manifest": tmp_path / "slices" / "slices.csv",
  }


def flags(command: str, given: dict[str, Path]) -> list[str]:
  more = ["model"] if "evaluate" in command else []
  names = {name: given[name] for name in [*_READS[command], *more] if name != "input"}
  return [*(f"--{name}={path}" for name, path in names.items()), f"--input={given.get(command, given['input'])}"]


@pytest.mark.parametrize(("command", "name", "where"), _CASES)
def test_an_output_overlaps_with_no_input(command, name, where, given, tmp_path, capsys):
  folder = given.get(command, given["input"]) if name == "input" else given[name]
  (tmp_path / "link").symlink_to(folder)
  places = {"in it": folder / "new", "around it": folder.parent, "it": folder, "in a link to it": tmp_path / "link/new"}
  output = "history" if command == "reevaluate" else "output"
  before = sorted(os.listdir(folder.parent))
  assert main([command, f"--{output}={places[where]}", *flags(command, given)]) == 2
  said = capsys.readouterr().err
  assert f"--{output} {places[where]} overlaps with --" in said, said
  assert said.count("\n") == 1
  assert sorted(os.listdir(folder.parent)) == before


@pytest.mark.parametrize("name", ["summaries_dir", "tflite_output_file"])
def test_nothing_else_is_written_into_the_bottlenecks(name, made, tmp_path, capsys):
  before = file_contents(made.bottlenecks)
  preset = ["--preset=retrain"] if name == "summaries_dir" else []
  arguments = [f"--input={made.bottlenecks}", f"--output={tmp_path / 'model'}", f"--{name}={made.bottlenecks / 'logs'}"]
  assert main(["train", *arguments, *preset]) == 2
  assert f"--{name} {made.bottlenecks / 'logs'} overlaps with --input" in capsys.readouterr().err
  assert file_contents(made.bottlenecks) == before


def test_a_neighbour_with_a_longer_name_is_apart(made, tmp_path, capsys):
  longer = Path(f"{made.bottlenecks}_2")
  assert main(["train", f"--input={made.bottlenecks}", f"--output={longer}/a", "--rounds=x"]) == 2
  assert "overlaps" not in capsys.readouterr().err
