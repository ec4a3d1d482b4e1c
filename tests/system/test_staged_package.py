"""A job whose workers have the package from its sdist alone: `--setup_file=./setup.py` on Flink."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest

from beam_retrain.transforms.core.run.exit_codes import ExitCode
from tests.system.engine_suite import ONE_WORKER, assert_same, engine_file, needs_engines, said
from tests.system.test_bad_input import lay_out_idx

_ROOT = Path(__file__).parents[2]
# Beam's own program that starts a worker, as in its images: it fetches what a job stages, and installs it.
_BOOT = """\
#!/bin/sh
cd {folder}  # not the command's folder, a checkout
export PATH={environment}/bin:$PATH PYTHONPATH={packages} PYTHONDONTWRITEBYTECODE=1
export RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1  # else below /opt, which is not everybody's to write
exec {boot} --semi_persist_dir={folder}/staged "$@"
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
  """A copy, as packing writes into it."""
  copy = tmp_path_factory.mktemp("checkout") / "beam-retrain"
  copy.mkdir()
  for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(_ROOT / name, copy)
  for name in ("beam_retrain", "pipelines", "transforms", "trainer", "reporting"):
    shutil.copytree(_ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
  return copy


@pytest.fixture
def environment(tmp_path) -> Path:
  """A new Python environment for the worker: what ours has installed, but not beam-retrain."""
  folder = tmp_path / "environment"
  subprocess.run([sys.executable, "-m", "venv", folder], check=True)
  packages = tmp_path / "packages"
  packages.mkdir()
  for path in Path(beam.__file__).parents[1].iterdir():
    if "beam_retrain" not in path.name and path.suffix != ".pth":
      (packages / path.name).symlink_to(path)
  return folder


@pytest.fixture
def flags(environment, tmp_path) -> list[str]:
  worker = tmp_path / "worker"
  boot = engine_file(f"beam-boot-v{beam.version.__version__}", "container")
  worker.write_text(_BOOT.format(environment=environment, packages=tmp_path / "packages", boot=boot, folder=tmp_path))
  worker.chmod(0o700)
  return [
    "--runner=FlinkRunner",
    "--flink_master=[local]",
    f"--flink_job_server_jar={engine_file('flink', 'job-server.jar')}",
    "--parallelism=1",
    "--environment_type=PROCESS",
    f"--environment_config={json.dumps({'command': str(worker)})}",
    "--job_server_jvm_properties=-XX:TieredStopAtLevel=1",
  ]


def convert(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
  command = [sys.executable, "-m", "beam_retrain.pipelines.convert", *argv]
  return subprocess.run(
    command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(_ROOT)}, capture_output=True, text=True, check=False
  )


@needs_engines
def test_workers_install_what_setup_file_packs(checkout, environment, flags, tmp_path):
  idx = lay_out_idx(tmp_path / "idx")
  assert (
    convert(f"--input={idx}", f"--output={tmp_path / 'expected'}", *ONE_WORKER, cwd=tmp_path).returncode
    == ExitCode.DONE
  )
  done = convert(f"--input={idx}", f"--output={tmp_path / 'output'}", "--setup_file=./setup.py", *flags, cwd=checkout)
  assert (done.returncode, said(done)) == (ExitCode.DONE, "")
  assert_same(tmp_path / "output", tmp_path / "expected")
  (installed,) = environment.glob("lib/python*/site-packages/beam_retrain/pipelines/convert.py")
  assert not installed.is_symlink()
