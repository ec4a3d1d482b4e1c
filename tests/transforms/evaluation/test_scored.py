"""A night copies the predictions of the night before where the bottlenecks are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.evaluation.evaluate import EvaluateShard


@pytest.fixture
def night(bundled_digits: Path, tmp_path: Path):
  def run(day: int) -> Path:
    flags = [f"--model={bundled_digits / 'model'}", f"--input={bundled_digits / 'data'}", f"--date=2026-03-0{day}"]
    assert main(["reevaluate", *flags, f"--history={tmp_path}"]) == 0
    return tmp_path / f"2026-03-0{day}"

  return run


def _lines(folder: Path) -> list[str]:
  """Returns the predictions without their execution times."""
  return re.sub(r"(True|False),[^,]*", r"\1", (folder / "predictions.csv").read_text()).splitlines()


def test_the_predictions_of_equal_bottlenecks_are_copied_unless_they_have_changed(night, monkeypatch):
  first = night(1)
  with monkeypatch.context() as patch:
    patch.setattr(EvaluateShard, "work", lambda *_: pytest.fail("scored again"))
    second = night(2)
  assert len(_lines(first)) == 301
  assert _lines(second) == _lines(first)
  (report,) = second.glob("bottlenecks/*/.scored/.shards/*.json")
  counts = json.loads(report.read_text())
  counts["extra"]["label_counts"]["model"]["in_top"] -= 100
  report.write_text(json.dumps(counts))
  figures = [json.loads((folder / "metrics.json").read_text())["top_3_accuracy"] for folder in (first, night(3))]
  assert figures[0] == figures[1]
