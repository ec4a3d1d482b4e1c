"""The remedy for a missing extra fits the way the package was installed."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import beam_retrain
from beam_retrain.transforms.core.system.extras import install_command


@pytest.fixture
def installed(tmp_path, monkeypatch):
  """Lays out the metadata that pip leaves, before those of this environment."""

  def lay_out(direct_url: dict | None) -> None:
    folder = tmp_path / "beam_retrain-9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: beam-retrain\nVersion: 9.9\n")
    (folder / "RECORD").write_text("")
    if direct_url:
      (folder / "direct_url.json").write_text(json.dumps(direct_url))
    monkeypatch.syspath_prepend(str(tmp_path))
    install_command.cache_clear()
    assert importlib.metadata.version("beam-retrain") == "9.9"

  yield lay_out
  install_command.cache_clear()


@pytest.mark.parametrize(
  ("direct_url", "command"),
  [
    (None, "pip install 'beam-retrain[fast]'"),
    ({"url": "file:///home/me/beam%20retrain", "dir_info": {}}, "pip install '/home/me/beam retrain[fast]'"),
    ({"url": "file:///src", "dir_info": {"editable": True}}, "pip install --editable '/src[fast]'"),
    ({"url": "file:///w/beam_retrain-1-py3-none-any.whl"}, "pip install '/w/beam_retrain-1-py3-none-any.whl[fast]'"),
  ],
)
def test_it_names_where_the_package_came_from(installed, direct_url, command):
  installed(direct_url)
  assert install_command("fast") == command


def test_without_installation_it_is_that_of_a_checkout(tmp_path):
  folder = tmp_path / "checkout"
  about = folder / "beam_retrain.egg-info"  # as `pip install --editable` leaves it
  about.mkdir(parents=True)
  (about / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: beam-retrain\nVersion: 9.9\n")
  (folder / "beam_retrain").symlink_to(Path(beam_retrain.__file__).parent)
  code = f"""
import sys
sys.path[:] = [{str(folder)!r}, *(path for path in sys.path if "site-packages" not in path)]
from beam_retrain.transforms.core.system.extras import install_command
print(install_command("aws"))
"""
  done = subprocess.run([sys.executable, "-I", "-c", code], cwd="/", capture_output=True, text=True, check=True)
  assert done.stdout == "pip install '.[aws]'\n"
