"""`plan` beside the job that it speaks of."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beam_retrain.pipelines.plan import command as plan
from beam_retrain.pipelines.plan.measure import Measurement
from beam_retrain.pipelines.plan.request import PlanRequest
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.run.cost_model import JobCosts
from beam_retrain.transforms.core.run.run_info import RunInfo
from tests.helpers import ROOT

COSTS = JobCosts(8.0, 0.0, 0.0, 0.1, 0.01, 0.0, 10**9, 8400.0, 10**6)
MEASURED = Measurement(COSTS, {}, 80, {}, RunInfo("bottlenecks"))


def trunk_of(made) -> str:
  return f"--trunk={made.data.parent / 'trunk'}"


def size(folder: Path) -> int:
  return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  """Where everything temporary goes, also of the processes that are started."""
  folder = tmp_path / "temporary"
  folder.mkdir()
  monkeypatch.setenv("TMPDIR", str(folder))
  monkeypatch.setattr("tempfile.tempdir", None)
  return folder


def test_plan_says_what_the_job_took(made, temporary, capsys):
  flags = [f"--input={made.data}", trunk_of(made), "--testing_percentage=30", "--workers=2", "--json"]
  assert plan.run(flags) == 0
  found = json.loads(capsys.readouterr().out)
  expected, costs = found["expected"], found["costs"]

  stats = json.loads((made.bottlenecks / "stats.json").read_text())["splits"]
  assert list(expected["pictures"].items()) == [(split, stats[split]["inputs"]) for split in ("training", "testing")]
  assert expected["shards"] == {split: stats[split]["shards"] for split in ("training", "testing")}
  assert expected["disk_bytes"] == pytest.approx(size(made.bottlenecks), rel=0.2)
  assert (found["looked_at"], found["bad"], found["first_secs"]) == (80, {}, 0)  # the trunk is prepared already
  assert found["decoding_megapixels"] >= 0.1  # of the smaller of two generated JPEGs
  info = json.loads((made.bottlenecks / "info.json").read_text())
  assert found["trunk"] == info["trunk"]
  assert found["execution"]["batch_size"] == info["settings"]["batch_size"]

  # On a busy machine no figure is sure, but none is nothing, and none is a hundred times what it should be.
  assert 0.3 < costs["start_secs"] < 300
  assert 1e-6 < costs["picture_secs"] < 0.1
  assert 0 <= costs["shard_secs"] < 5
  assert 0 < costs["listing_secs"] + costs["planning_secs"] < 0.01
  assert 0 <= costs["closing_secs"] < 0.01
  assert 2e8 < costs["memory_bytes"] < 2e10
  assert expected["total_secs"] == pytest.approx(sum(expected["seconds"].values()))
  assert os.listdir(temporary) == []  # nothing is left behind


# A shell starts background commands with SIGINT ignored, and the tests may be one: what is to hear of it gets Python's
# handler back. SIGTERM is what a scheduler sends, whose commands ignore SIGINT.
@pytest.mark.parametrize(
  ("number", "on_sigint"),
  [(signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_IGN)],
  ids=["terminal", "scheduler"],
)
def test_interrupted_it_leaves_nothing(made, temporary, number, on_sigint):
  arguments = ["plan", f"--input={made.data}", trunk_of(made)]
  command = [
    sys.executable,
    "-c",
    "import sys; from beam_retrain.pipelines.cli import main; sys.exit(main())",
    *arguments,
  ]
  with subprocess.Popen(
    command, stderr=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=lambda: signal.signal(signal.SIGINT, on_sigint)
  ) as started:
    deadline = time.monotonic() + 120
    while not list(temporary.rglob("pictures")) and time.monotonic() < deadline:
      time.sleep(0.02)
    # To it alone, so that its process hears of it by being killed.
    started.send_signal(number)
    said = started.communicate(timeout=300)[1]
  assert (started.returncode, said.splitlines()[-1].split(";")[0]) == (2, "beam-retrain: interrupted")
  assert os.listdir(temporary) == []


def test_what_is_wrong_is_told_before_anything_is_measured(made, tmp_path):
  with pytest.raises(InputError, match="does not exist"):
    plan.run([f"--input={tmp_path / 'nowhere'}"])
  with pytest.raises(InputError, match="--outptu"):
    plan.run([f"--input={made.data}", "--outptu=x"])


def test_what_the_job_would_refuse_is_told(made):
  with pytest.raises(InputError, match=r"--trunk nowhere is neither a folder"):
    plan.run([f"--input={made.data}", "--trunk=nowhere"])


def test_the_job_over_a_sample_runs_as_the_whole_job_will(made):
  given = [trunk_of(made), "--trunk_threads=1", "--batch_size=16", "--precision=float32", "--max_pixels=1000"]
  local = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
  request = PlanRequest.parse([f"--input={made.data}", *given, *local])
  whole = request.find_input()
  arguments = request.of_sample("pictures", "output", whole.engine).to_argv()
  assert {*given, *local, "--input=pictures", "--output=output"} <= set(arguments)
  assert not whole.engine


def test_an_engine_is_left_out_of_the_sample_and_named(made):
  request = PlanRequest.parse([f"--input={made.data}", "--runner=PrismRunner", "--batch_size=16"])
  engine = request.find_input().engine
  assert request.of_sample("pictures", "output", engine).beam_options == ()
  (line,) = plan.notes(MEASURED, engine)
  assert "PrismRunner" in line


def test_bad_images_and_a_first_run_are_told():
  measured = dataclasses.replace(MEASURED, bad={"EMPTY": 2, "TRUNCATED": 1}, first_secs=9.4)
  bad, first = plan.notes(measured)
  assert bad == "of 80 images in the sample, 3 cannot be used (2 EMPTY, 1 TRUNCATED)"
  assert "9 s more" in first
  (line,) = plan.notes(dataclasses.replace(measured, first_secs=0.4))
  assert line == bad


def test_the_size_from_which_decoding_is_the_limit_is_told():
  (line,) = plan.notes(dataclasses.replace(MEASURED, decoding_megapixels=20.71))
  assert line == "JPEGs of more than 21 megapixels take longer to decode than the trunk takes"


@pytest.mark.parametrize(
  ("total", "expected"),
  [
    (None, {"training": 6, "testing": 1}),
    (7000, {"training": 6000, "testing": 1000}),
    (10, {"training": 9, "testing": 1}),
  ],
)
def test_more_images_are_shared_out_as_those_that_are_there(total, expected):
  assert plan.scaled({"training": 6, "testing": 1}, total) == expected
