"""What Beam workers install: the source package has all that they execute."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("pipelines", "transforms", "trainer", "reporting")


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> set[str]:
  """Names in the sdist that `--setup_file=./setup.py` makes, below its one folder."""
  copy = tmp_path_factory.mktemp("package")
  for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(_ROOT / name, copy)
  for name in _PACKAGES:
    shutil.copytree(_ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
  subprocess.run([sys.executable, "setup.py", "--quiet", "sdist"], cwd=copy, check=True, capture_output=True)
  (archive,) = (copy / "dist").glob("*.tar.gz")
  with tarfile.open(archive) as tar:
    return {name.split("/", 1)[1] for name in tar.getnames() if "/" in name}


def test_every_module_is_packed(packed):
  modules = {path.relative_to(_ROOT).as_posix() for name in _PACKAGES for path in (_ROOT / name).rglob("*.py")}
  assert len(modules) > 50
  assert modules <= packed


def test_the_bundled_trunk_is_packed_and_small_enough(packed):
  assert "transforms/core/bundled_trunk/weights.npz" in packed
  assert (_ROOT / "transforms/core/bundled_trunk/weights.npz").stat().st_size <= 6_000_000


def test_the_report_s_templates_are_packed(packed):
  folder = _ROOT / "reporting/templates"
  assert {path.relative_to(_ROOT).as_posix() for path in folder.iterdir()} <= packed
  assert "reporting/templates/report.html" in packed


def test_no_test_is_packed(packed):
  assert not [name for name in packed if name.startswith("tests/")]
