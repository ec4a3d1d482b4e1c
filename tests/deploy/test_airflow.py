"""The DAG in deploy/airflow, run by a real Airflow of its own environment: `make airflow` makes one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from beam_retrain.transforms.core.run.exit_codes import ExitCode
from tests.helpers import ROOT

_DEPLOY = ROOT / "deploy" / "airflow"
_VARIABLE = "BEAM_RETRAIN_AIRFLOW"

# Not in a fixture: those of the session would train a model first.
pytestmark = pytest.mark.skipif(
  not os.environ.get(_VARIABLE),
  reason=f"{_VARIABLE} names no environment with Airflow: `make test-airflow` makes one and sets it",
)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
  """Runs an Airflow command, given the DAG's Variable, with the DAG as it is and a database of its own."""
  home = tmp_path_factory.mktemp("airflow")

  def run(*arguments: str, variable: dict | None = None, name: str = "NIGHTLY") -> subprocess.CompletedProcess:
    return subprocess.run(
      [Path(os.environ[_VARIABLE]) / "bin" / "airflow", *arguments],
      cwd=home,
      env={
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(_DEPLOY),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        f"AIRFLOW_VAR_BEAM_RETRAIN_{name}": json.dumps(variable),
        "PYTHONDONTWRITEBYTECODE": "1",
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  migrated = run("db", "migrate")
  assert migrated.returncode == 0, migrated.stdout
  return run


@pytest.fixture
def night(airflow, tmp_path, trained_model, small_images) -> Callable[..., tuple[subprocess.CompletedProcess, Path]]:
  """Runs `airflow dags test` on images of which one has a wrong label; gives what it said, and the night's folder."""
  images = shutil.copytree(small_images, tmp_path / "pictures")
  with Image.open(images / "black" / "1.png") as image:  # other bytes, which the model was not trained on
    image.save(images / "white" / "mislabelled.bmp")

  def run(min_accuracy: float) -> tuple[subprocess.CompletedProcess, Path]:
    history = tmp_path / "history"
    flags = {"model": trained_model, "input": images, "history": history, "min_accuracy": min_accuracy}
    flags = {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()}
    ran = airflow("dags", "test", "beam_retrain_nightly", variable={"python": sys.executable, "flags": flags})
    nights = [path for path in history.glob("*-*-*") if path.is_dir()]
    assert len(nights) == 1, ran.stdout
    return ran, nights[0]

  return run


def test_a_green_run_leaves_the_night_of_its_day(night):
  ran, folder = night(min_accuracy=0.5)
  assert ran.returncode == 0, ran.stdout
  assert "new_state=success" in ran.stdout
  assert "--runner=DirectRunner" in ran.stdout
  assert f"--date={folder.name}" in ran.stdout
  assert (folder / "COMPLETED").exists()
  assert json.loads((folder / "metrics.json").read_text())["gates"]["min_accuracy"]["state"] == "passed"


def test_a_missed_gate_is_a_red_run_that_is_not_tried_again(night):
  ran, folder = night(min_accuracy=1.0)
  assert ran.returncode != 0
  assert "DagRun failed" in ran.stdout
  assert "new_state=failed" in ran.stdout
  assert re.findall(r"Process exited with return code: (\d+)", ran.stdout) == [str(ExitCode.GATE_MISSED)]
  # Python itself ends with 1 where a module is missing: it was the gate.
  assert json.loads((folder / "metrics.json").read_text())["gates"]["min_accuracy"]["state"] == "missed"


@pytest.mark.parametrize(("max_drop", "promoted"), [(0.5, True), (0.0, False)])
def test_a_week_promotes_a_candidate_that_is_no_worse(
  airflow, tmp_path, trained_model, small_images, tiny_trunk, max_drop, promoted
):
  models, config = tmp_path / "models", tmp_path / "weekly.toml"
  shutil.copytree(trained_model, models / "first")
  (models / "current").symlink_to("first")
  text = (_DEPLOY / "weekly.toml").read_text()
  values = {"input": str(small_images), "trunk": str(tiny_trunk), "max_drop": max_drop}
  for name, value in values.items():
    text = re.sub(rf"^{name} = .*$", f"{name} = {json.dumps(value)}", text, flags=re.MULTILINE)
  # A head that has learned nothing, where it is to be worse.
  worse = '[train]\npreset = "retrain"\ntraining_steps = 1\nlearning_rate = 1e-9\n'
  config.write_text(text if promoted else f"{text}\n{worse}")
  command = Path(sys.executable).with_name("beam-retrain")
  variable = {"command": str(command), "config": str(config), "models": str(models), "work": str(tmp_path / "work")}

  def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

  def week() -> subprocess.CompletedProcess:
    return airflow("dags", "test", "beam_retrain_weekly", variable=variable, name="WEEKLY")

  ran = week()
  assert (ran.returncode == 0) == promoted, ran.stdout
  (candidate,) = [path for path in models.iterdir() if path.name not in ("first", "current")]
  assert (candidate / "COMPLETED").exists()
  assert (models / "current").resolve().name == (candidate.name if promoted else "first")
  (night,) = (tmp_path / "work" / "comparisons").glob("*-*-*")
  metrics = json.loads((night / "metrics.json").read_text())
  assert metrics["candidate"]["gates"]["max_drop"]["state"] == ("passed" if promoted else "missed")

  if promoted:  # another run on this day leaves what is in use as it is
    before = written(candidate)
    again = week()
    assert again.returncode == 0, again.stdout
    assert written(candidate) == before
    assert (models / "current").resolve() not in (candidate, models / "first")
