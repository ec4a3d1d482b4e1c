"""How the optional packages are installed here."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import sys
import urllib.parse
import urllib.request

_NAME = "beam-retrain"


@functools.cache
def install_command(extra: str) -> str:
  """Returns the command that adds an extra to this installation.

  It names where the package was installed from: a folder or file (PEP 610, direct_url.json), or else an index. Where
  the folder or file is gone, as in an image, it names the extra's own packages. Without installation it is that of a
  checkout.
  """
  # A checkout also has an .egg-info, which says nothing of that and hides the installation from its own folder.
  installed = [one for one in importlib.metadata.distributions(name=_NAME) if one.read_text("RECORD") is not None]
  if not installed:
    return f"{_pip()} install '.[{extra}]'"
  found = json.loads(installed[0].read_text("direct_url.json") or "{}")
  url = urllib.parse.urlsplit(found.get("url", ""))
  editable = "--editable " if found.get("dir_info", {}).get("editable") else ""
  source = urllib.request.url2pathname(url.path) if url.scheme == "file" else _NAME
  if url.scheme == "file" and not os.path.exists(source) and (needed := _requirements(installed[0], extra)):
    return f"{_pip()} install {shlex.join(needed)}"
  return f"{_pip()} install {editable}{shlex.quote(f'{source}[{extra}]')}"


def _pip() -> str:
  """Returns this Python's pip: a path if `PATH` lacks it."""
  ours, found = os.path.join(os.path.dirname(sys.executable), "pip"), shutil.which("pip")
  is_found = found and os.path.realpath(os.path.dirname(found)) == os.path.realpath(os.path.dirname(ours))
  return "pip" if is_found or not os.path.exists(ours) else shlex.quote(ours)


def _requirements(installed: importlib.metadata.Distribution, extra: str) -> list[str]:
  """Returns the requirements of an extra, without their markers."""
  of_extra = re.compile(rf"""\bextra\s*==\s*["']{extra}["']""")
  return [one.partition(";")[0].strip() for one in installed.requires or () if of_extra.search(one)]
