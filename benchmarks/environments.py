"""An environment for each set of peers, made of `benchmarks/peers/NAME.txt` and kept until that file changes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from beam_retrain.transforms.core.errors import InputError

REQUIREMENTS = Path(__file__).parent / "peers"
_STAMP = ".made_of"


def environment_names() -> list[str]:
  return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def make_environment(name: str, folder: Path) -> Path:
  """Returns the Python of an environment; makes it where it is not there, or was made of other requirements.

  Args:
    name: of the file of requirements, without its suffix.
    folder: where environments are.

  Raises:
    InputError: it cannot be made; says why.
  """
  requirements = REQUIREMENTS / f"{name}.txt"
  digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
  home = folder / name
  python, stamp = home / "bin" / "python", home / _STAMP
  if stamp.exists() and stamp.read_text() == digest:
    return python
  print(f"making the environment of {name}", flush=True)
  shutil.rmtree(home, ignore_errors=True)
  _call(name, sys.executable, "-m", "venv", str(home))
  pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
  _call(name, *pip, "--requirement", str(requirements))
  stamp.write_text(digest)
  return python


def _call(name: str, *command: str) -> None:
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    error = next((line for line in said if line.startswith("ERROR")), said[-1] if said else f"code {done.returncode}")
    raise InputError(f"the environment of {name} cannot be made ({error.removeprefix('ERROR: ')})")
