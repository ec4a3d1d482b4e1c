"""What users and Beam's workers install: the package `beam_retrain` and nothing beside it, whatever lies around it."""

from __future__ import annotations

import email
import functools
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from beam_retrain.transforms.core.images.idx import encode_idx
from tests.conftest import DigitsRun
from tests.helpers import ROOT, python

_VERSION = re.search(r'version="(.+?)"', (ROOT / "setup.py").read_text())[1]
_ROOMS = ("pipelines", "transforms", "trainer", "reporting")
_RAISES = 'raise ImportError("this is somebody else\'s package")\n'


class Packed(NamedTuple):
  """`folder`: a copy of the checkout; `sdist` and `wheel`: their files by name, the sdist's below its one folder."""

  folder: Path
  wheel_path: Path
  sdist: dict[str, tarfile.TarInfo]
  wheel: list[str]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
  """Builds both, as `--setup_file=./setup.py` and `pip wheel` do, of what the Dockerfile's build is given."""
  copy = tmp_path_factory.mktemp("package")
  for line in (ROOT / "deploy" / "kubernetes" / "Dockerfile.dockerignore").read_text().splitlines():
    if line.startswith("!"):
      source = ROOT / line[1:]
      put = functools.partial(shutil.copytree, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
      (put if source.is_dir() else shutil.copy)(source, copy / source.name)
  (copy / "build" / "lib" / "trainer").mkdir(parents=True)  # as an installation of 0.4 left it
  (copy / "build" / "lib" / "trainer" / "__init__.py").touch()
  python("setup.py", "--quiet", "sdist", "bdist_wheel", cwd=copy)
  (archive,) = (copy / "dist").glob("*.tar.gz")
  (wheel,) = (copy / "dist").glob("*.whl")
  with tarfile.open(archive) as tar:
    members = {member.name.split("/", 1)[1]: member for member in tar.getmembers() if "/" in member.name}
  with zipfile.ZipFile(wheel) as file:
    return Packed(copy, wheel, members, file.namelist())


def _tops(names: Iterable[str]) -> set[str]:
  return {name.split("/", 1)[0] for name in names}


def test_every_module_is_packed(packed):
  files = [path for name in _ROOMS for path in (ROOT / name).rglob("*.py")]
  modules = {f"beam_retrain/{path.relative_to(ROOT).as_posix()}" for path in files}
  assert len(modules) > 50
  assert modules <= packed.sdist.keys()
  assert modules <= set(packed.wheel)


def test_nothing_but_the_one_package_is_packed(packed):
  about = {"beam_retrain.egg-info", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}
  assert _tops(packed.sdist) == {"beam_retrain"} | about
  assert _tops(packed.wheel) == {"beam_retrain", f"beam_retrain-{_VERSION}.dist-info"}


def test_the_metadata_is_complete(packed):
  with zipfile.ZipFile(packed.wheel_path) as wheel:
    metadata = email.message_from_bytes(wheel.read(f"beam_retrain-{_VERSION}.dist-info/METADATA"))
  assert metadata["Author"] == "the beam-retrain authors"
  assert set(metadata["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
  assert metadata["Description-Content-Type"] == "text/markdown"
  assert metadata.get_payload().lstrip().startswith("# beam-retrain")
  assert "transfer learning" in metadata["Keywords"]
  kinds = metadata.get_all("Classifier")
  assert {f"Programming Language :: Python :: {python}" for python in ("3.11", "3.12", "3.13")} <= set(kinds)
  assert {"fast", "aws", "heic", "serve", "dev"} == set(metadata.get_all("Provides-Extra"))
  assert "beam_retrain/py.typed" in packed.wheel
  assert any(name.endswith("LICENSE") for name in packed.wheel)


def test_constraints_can_be_installed_on_the_first_release_of_each_python():
  pins = {}
  for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]:
    requirement = Requirement(line)
    if requirement.marker is None or requirement.marker.evaluate():
      pins[requirement.name] = str(requirement.specifier)
  # As `[dev]` is installed here; a pin that was changed since is looked at once it is installed.
  found = [each for each in importlib.metadata.distributions() if pins.get(each.name) == f"=={each.version}"]
  assert len(found) > 100
  first = f"{sys.version_info.major}.{sys.version_info.minor}.0"
  refuse = {each.name: wanted for each in found if (wanted := each.metadata["Requires-Python"])}
  assert {name: wanted for name, wanted in refuse.items() if first not in SpecifierSet(wanted)} == {}


def test_what_is_packed_are_files_and_no_links(packed):
  assert [name for name, member in packed.sdist.items() if not (member.isfile() or member.isdir())] == []
  with zipfile.ZipFile(packed.wheel_path) as wheel:
    # The file type of Unix: 0 where the writer said none, 0o10 for a file, 0o12 for a link.
    assert {entry.external_attr >> 28 for entry in wheel.infolist()} <= {0, 0o10}


def test_the_bundled_trunk_is_packed_and_small_enough_but_not_its_recipe(packed):
  for names in (packed.sdist, packed.wheel):
    assert "beam_retrain/transforms/core/bundled_trunk/weights.npz" in names
    assert not [name for name in names if "glyphs" in name or "recipe" in name]
  assert (ROOT / "transforms/core/bundled_trunk/weights.npz").stat().st_size <= 6_000_000


def test_the_report_s_templates_are_packed(packed):
  templates = {f"beam_retrain/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "reporting/templates").iterdir()}
  assert templates <= packed.sdist.keys()
  assert templates <= set(packed.wheel)
  assert "beam_retrain/reporting/templates/report.html" in templates


class Installed(NamedTuple):
  """An environment of its own, with the wheel in it; what the wheel depends on is this environment's."""

  folder: Path

  def pip(self, *arguments: str | Path) -> None:
    python("-m", "pip", f"--python={self.folder / 'bin' / 'python'}", "--quiet", *arguments, cwd=self.folder)

  def run(self, folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of the environment in a folder, with nothing of the checkout on its path."""
    program, *arguments = command
    return subprocess.run(
      [self.folder / "bin" / program, *arguments],
      cwd=folder,
      env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "TF_CPP_MIN_LOG_LEVEL": "2"},
      capture_output=True,
      text=True,
      check=False,
    )

  def files(self) -> list[str]:
    (package,) = self.folder.glob("lib/python*/site-packages/beam_retrain")
    return sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))


@pytest.fixture(scope="module")
def installed(packed, tmp_path_factory) -> Installed:
  folder = tmp_path_factory.mktemp("environment") / "env"
  python("-m", "venv", "--without-pip", folder)
  environment = Installed(folder)
  environment.pip("install", "--no-deps", "--no-index", packed.wheel_path)
  (packages,) = folder.glob("lib/python*/site-packages")
  # A folder that a .pth file names is searched, but its own .pth files are not read: no editable installation leads
  # to the checkout.
  (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
  return environment


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
  """The wheel of Coqui's `trainer`, from the package index."""
  folder = tmp_path_factory.mktemp("theirs")
  command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "trainer==0.0.36"]
  ended = subprocess.run(command, capture_output=True, text=True, check=False)
  if ended.returncode:
    pytest.skip(f"the package index does not answer: {ended.stderr.strip().splitlines()[-1]}")
  (wheel,) = folder.glob("*.whl")
  return wheel


def test_it_works_from_an_empty_folder(installed, tmp_path):
  here = tmp_path / "here"
  here.mkdir()
  shown = installed.run(here, "beam-retrain", "--version")
  assert (shown.returncode, shown.stdout) == (0, f"beam-retrain {_VERSION}\n"), shown.stderr
  _write_idx(tmp_path / "idx")
  done = installed.run(here, "beam-retrain", "convert", f"--input={tmp_path / 'idx'}", "--output=out")
  assert done.returncode == 0, done.stderr
  assert len(list((here / "out").rglob("*.jpg"))) == 30
  where = installed.run(here, "python", "-c", "import beam_retrain; print(beam_retrain.__file__)").stdout
  assert where.startswith(str(installed.folder))


def _write_idx(folder: Path) -> None:
  folder.mkdir()
  pixels = np.random.default_rng(5).integers(0, 256, (30, 9, 8), dtype=np.uint8)
  for name, some in (("train", slice(0, 20)), ("t10k", slice(20, None))):
    (folder / f"{name}-images-idx3-ubyte").write_bytes(encode_idx(pixels[some]))
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(encode_idx((np.arange(30) % 2).astype(np.uint8)[some]))


def test_a_package_trainer_beside_it_does_no_harm_nor_does_its_removal(installed, theirs, made: DigitsRun, tmp_path):
  before = installed.files()
  installed.pip("install", "--no-deps", "--no-index", theirs)
  find = "import importlib.util as u; print(u.find_spec('trainer').origin)"
  assert installed.run(tmp_path, "python", "-c", find).stdout.endswith("site-packages/trainer/__init__.py\n")
  given = (f"--input={made.bottlenecks}", "--output=beside", "--rounds=1")
  done = installed.run(tmp_path, "beam-retrain", "train", *given)
  assert done.returncode == 0, done.stderr
  installed.pip("uninstall", "--yes", "trainer")
  assert "No module named 'trainer'" in installed.run(tmp_path, "python", "-c", "import trainer").stderr
  assert installed.files() == before
  done = installed.run(tmp_path, "python", "-c", "import beam_retrain.trainer.task")
  assert done.returncode == 0, done.stderr


def test_folders_of_these_names_in_the_current_one_do_no_harm(installed, tmp_path):
  """Python puts the current folder first on the path of `python -m`, and Beam's workers are started so."""
  for room in _ROOMS:
    (tmp_path / room).mkdir()
    (tmp_path / room / "__init__.py").write_text(_RAISES)
  _write_idx(tmp_path / "idx")
  two = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
  flags = ("--input=idx", "--output=out", "--runner=FnApiRunner", *two)
  done = installed.run(tmp_path, "python", "-m", "beam_retrain.pipelines.convert", *flags)
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "out" / "COMPLETED").exists()


def test_the_rooms_at_the_top_are_commands_of_a_checkout():
  assert "usage: beam-retrain bottlenecks" in python("-m", "pipelines.bottlenecks", "--help").stdout


@pytest.mark.parametrize("room", _ROOMS)
def test_a_bare_import_of_a_room_is_no_import_of_ours(room):
  """By two names a module would be loaded twice, and `except InputError` would miss the other's."""
  command = [Path(sys.executable).parent / "ruff", "check", "--stdin-filename=transforms/new.py", "-"]
  checked = subprocess.run(command, input=f"import {room}.new\n", cwd=ROOT, capture_output=True, text=True, check=False)
  assert "TID251" in checked.stdout
