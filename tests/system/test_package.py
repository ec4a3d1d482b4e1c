"""What Beam workers install: the source package has all that they execute."""

import shutil
import subprocess
import sys
import tarfile

import pytest

from tests.helpers import ROOT

_ROOMS = ("pipelines", "transforms", "trainer", "reporting")


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> set[str]:
  """Names in the sdist that `--setup_file=./setup.py` makes, below its one folder."""
  copy = tmp_path_factory.mktemp("package")
  for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, copy)
  for name in ("beam_retrain", *_ROOMS):
    shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
  subprocess.run([sys.executable, "setup.py", "--quiet", "sdist"], cwd=copy, check=True, capture_output=True)
  (archive,) = (copy / "dist").glob("*.tar.gz")
  with tarfile.open(archive) as tar:
    return {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}


def test_every_module_is_packed(packed):
  files = [path for name in _ROOMS for path in (ROOT / name).rglob("*.py")]
  modules = {f"beam_retrain/{path.relative_to(ROOT).as_posix()}" for path in files}
  assert len(modules) > 50
  assert modules <= packed


def test_the_bundled_trunk_is_packed_and_small_enough(packed):
  assert "beam_retrain/transforms/core/bundled_trunk/weights.npz" in packed
  assert (ROOT / "transforms/core/bundled_trunk/weights.npz").stat().st_size <= 6_000_000


def test_the_report_s_templates_are_packed(packed):
  folder = ROOT / "reporting/templates"
  assert {f"beam_retrain/{path.relative_to(ROOT).as_posix()}" for path in folder.iterdir()} <= packed
  assert "beam_retrain/reporting/templates/report.html" in packed


def test_nothing_else_is_packed(packed):
  tops = {name.split("/", 1)[0] for name in packed}
  assert tops == {"beam_retrain", "beam_retrain.egg-info", "LICENSE", "PKG-INFO", "README.md"} | {
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
  }
