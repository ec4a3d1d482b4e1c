"""The remedy for a missing extra fits the way the package was installed."""

import importlib.metadata
import json
import shlex
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
    extras = ("fast", "openvino<2027,>=2025"), ("fast", "nncf<4"), ("aws", "boto3<2")
    needs = "".join(f'Requires-Dist: {name}; extra == "{extra}"\n' for extra, name in extras)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: beam-retrain\nVersion: 9.9\n{needs}")
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
    ({"url": "file://HERE/beam%20retrain", "dir_info": {}}, "pip install 'HERE/beam retrain[fast]'"),
    ({"url": "file://HERE/src", "dir_info": {"editable": True}}, "pip install --editable 'HERE/src[fast]'"),
    ({"url": "file://HERE/one-1-py3-none-any.whl"}, "pip install 'HERE/one-1-py3-none-any.whl[fast]'"),
    ({"url": "file://HERE/gone", "dir_info": {}}, "pip install 'openvino<2027,>=2025' 'nncf<4'"),
  ],
)
def test_it_names_where_the_package_came_from_or_else_what_it_needs(
  installed, tmp_path, monkeypatch, direct_url, command
):
  monkeypatch.setenv("PATH", "/usr/bin")
  for name in ("beam retrain", "src", "one-1-py3-none-any.whl"):
    (tmp_path / name).touch()
  direct_url, command = json.loads(json.dumps([direct_url, command]).replace("HERE", str(tmp_path)))
  installed(direct_url)
  pip = Path(sys.executable).with_name("pip")
  assert install_command("fast") == command.replace("pip", shlex.quote(str(pip)), 1)  # another Python's pip is no help
  install_command.cache_clear()
  monkeypatch.setenv("PATH", str(pip.parent))
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
  path = {"PATH": str(Path(sys.executable).parent)}
  done = subprocess.run(
    [sys.executable, "-I", "-c", code], cwd="/", env=path, capture_output=True, text=True, check=True
  )
  assert done.stdout == "pip install '.[aws]'\n"
