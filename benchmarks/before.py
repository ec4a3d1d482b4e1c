"""Version 0.4 of this project, in a checkout and an environment of its own, to be measured beside this one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError

_ROOT = Path(__file__).resolve().parents[1]
COMMIT = "7467f2c"
NAME = "beam-retrain 0.4"
_MADE = "made"


class Version(NamedTuple):
  """A version of this project: where it lies, and how its commands begin."""

  name: str
  root: Path
  command: tuple[str, ...]


THIS = Version("beam-retrain", _ROOT, (sys.executable, "-m", "beam_retrain.pipelines.cli"))


def at(root: Path) -> Version:
  """Returns the version in `root`, which has its environment in `.venv`."""
  return Version(NAME, root, (str(root / ".venv" / "bin" / "python"), "-m", "pipelines.cli"))


def make_before(root: Path) -> Version:
  """Checks version 0.4 out to `root` with an environment; what is there is kept.

  Raises:
    InputError: it cannot be made; says why.
  """
  if not (root / ".venv" / _MADE).exists():
    print("making the environment of version 0.4", flush=True)
    if not root.exists():
      _call("git", "clone", "--quiet", "--shared", "--no-checkout", str(_ROOT), str(root))
    _call("git", "-C", str(root), "checkout", "--quiet", COMMIT)
    _call(sys.executable, "-m", "venv", str(root / ".venv"))
    pip = (str(root / ".venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _call(*pip, "--constraint", str(root / "constraints.txt"), "--editable", f"{root}[dev]")
    (root / ".venv" / _MADE).touch()
  return at(root)


def _call(*command: str) -> None:
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    said = (done.stderr or done.stdout).strip().splitlines()
    raise InputError(f"version 0.4 cannot be made ({said[-1] if said else f'code {done.returncode}'})")
