"""The folder of `run` is taken for the output that a command reads, or refused with the path that it takes."""

from __future__ import annotations

import pytest

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.run.exit_codes import ExitCode

RUN = "output/digits"


@pytest.fixture(autouse=True)
def in_copy(quick_start, monkeypatch):
  monkeypatch.chdir(quick_start.copy)


def test_train_reads_its_bottlenecks(tmp_path, capsys):
  assert main(["train", "--input", RUN, "--output", str(tmp_path / "model"), "--epochs", "1"]) == ExitCode.DONE
  assert "1,347 training" in capsys.readouterr().out


def test_its_bottlenecks_are_reused(tmp_path, capsys):
  words = ["bottlenecks", "--input", f"{RUN}/convert", "--trunk", "bundled", "--output", str(tmp_path), "--reuse", RUN]
  assert main(words) == ExitCode.DONE
  assert f"1,797 of 1,797 bottlenecks reused from {RUN}/bottlenecks, 0 computed" in capsys.readouterr().out


def test_a_night_is_compared_with_its_evaluation(tmp_path, capsys):
  words = ["reevaluate", "--model", RUN, "--input", f"{RUN}/convert", "--history", str(tmp_path), "--baseline", RUN]
  assert main([*words, "--split", "testing"]) == ExitCode.DONE
  assert "0 regressed" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("words", "remedy"),
  [
    (["evaluate", "--model", RUN, "--input", RUN, "--output", "new"], f"give its images, {RUN}/convert."),
    (["bottlenecks", "--trunk", "bundled", "--input", RUN, "--output", "new"], f"give its images, {RUN}/convert."),
    (["run", "--data", RUN, "--output", "new"], f"give its images, {RUN}/convert."),
    (["verify", "--same", RUN, RUN], f"give an output in it, such as {RUN}/evaluate."),
  ],
)
def test_where_images_or_one_output_are_read_it_is_told(words, remedy, capsys):
  assert main(words) == ExitCode.FAILED
  assert capsys.readouterr().err == f"beam-retrain: {RUN} was written by `beam-retrain run`: {remedy}\n"
