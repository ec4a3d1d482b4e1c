"""A command's last lines are commands that run as they are typed, and with -q there is nothing but the result."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.run.next_steps import program

ACCURACY = r"Accuracy \d+\.\d % \(\d+ of \d+; 95 % interval \d+ to \d+\)"


def following(out: str) -> list[str]:
  """Returns the words of the next command, if one is printed."""
  commands = [line.removeprefix("next: ") for line in out.splitlines() if line.startswith("next: ")]
  return shlex.split(commands[-1]) if commands else []


_STAGES = ["bottlenecks", "train", "evaluate", "predict"]


@pytest.mark.parametrize(
  ("typed", "stages"),
  [
    ("convert --input {images} --output 'my work/images' --formats=jpg", ["convert", "run", "predict"]),
    ("bottlenecks --input {images} --output 'my work/bottlenecks'", _STAGES),
    (
      "retrain --image_dir {images} --tfhub_module bundled --output_graph g.pb --output_labels l.txt --bottleneck_dir b"
      " --work_dir 'my work' --summaries_dir s --checkpoint_path c --how_many_training_steps 5 --testing_percentage 30",
      ["retrain", "predict"],
    ),
  ],
)
def test_each_command_names_the_next_which_runs_as_it_is_typed(
  typed, stages, small_images, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "my work").mkdir()
  typed = shlex.split("beam-retrain " + typed.replace("{images}", str(small_images)))
  commands = []
  while typed:
    commands.append(typed[1])
    assert main(typed[1:]) == 0
    out = capsys.readouterr().out
    typed = following(out)
    if commands[-1] == "evaluate":
      first, *_, report, _ = out.splitlines()
      assert re.fullmatch(ACCURACY, first)
      assert Path(report.removeprefix("report: ")).is_file()
      assert "testing images are too few for a narrower interval: set more aside with --testing_percentage 30" in out
  assert commands == stages


def test_a_program_that_the_shell_does_not_find_is_named_by_its_path(tmp_path, monkeypatch):
  folder = tmp_path / "bin"
  folder.mkdir()
  (folder / "beam-retrain").write_text("#!/bin/sh\n")
  (folder / "beam-retrain").chmod(0o755)
  monkeypatch.setattr("sys.argv", [f"{folder}/beam-retrain"])
  assert program() == f"{folder}/beam-retrain"
  monkeypatch.setenv("PATH", str(folder))
  assert program() == "beam-retrain"


def test_run_begins_with_its_result_where_nothing_else_is_wanted(small_images, tmp_path, monkeypatch, capfd):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(small_images, "photos")
  (tmp_path / "photos" / "white" / "empty.png").write_bytes(b"")
  typed = ["run", "--data", "photos", "--output", "out", "--testing_percentage=30", "--max_bad_fraction=0.1"]
  assert main([*typed, "-q"]) == 0
  out, err = capfd.readouterr()
  assert re.fullmatch(f"{ACCURACY}\n", out)
  assert err == ""

  assert main([*typed, "-v"]) == 0
  out, _ = capfd.readouterr()
  assert "figures of the model's" in out
  assert out.count("out/evaluate/metrics.json") == 1

  assert main(typed) == 0
  out, _ = capfd.readouterr()
  assert "figures of the model's" not in out
  lines = out.splitlines()
  assert lines[-2] == "report: out/evaluate/report.html"
  assert following(out)[:4] == ["beam-retrain", "predict", "--model", "out"]
  assert main(following(out)[1:]) == 0


@pytest.mark.parametrize("level", ["-q", "-v"])
def test_what_predict_prints_is_the_same_at_every_level(trained_model, small_images, level, capsys):
  typed = ["predict", f"--model={trained_model}", str(small_images / "white" / "1.png"), "--format=csv"]
  printed = []
  for more in ([], [level]):
    assert main([*typed, *more]) == 0
    printed.append(capsys.readouterr().out)
  assert printed[0] == printed[1] != ""
