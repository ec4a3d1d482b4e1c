"""How the optional packages are installed here."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import shlex
import urllib.parse
import urllib.request

_NAME = "beam-retrain"


@functools.cache
def install_command(extra: str) -> str:
  """Returns the command that adds an extra to this installation.

  It names where the package was installed from: a folder or file (PEP 610, direct_url.json), or else an index. Without
  installation it is that of a checkout.
  """
  # A checkout also has an .egg-info, which says nothing of that and hides the installation from its own folder.
  installed = [one for one in importlib.metadata.distributions(name=_NAME) if one.read_text("RECORD") is not None]
  if not installed:
    return f"pip install '.[{extra}]'"
  found = json.loads(installed[0].read_text("direct_url.json") or "{}")
  url = urllib.parse.urlsplit(found.get("url", ""))
  editable = "--editable " if found.get("dir_info", {}).get("editable") else ""
  source = urllib.request.url2pathname(url.path) if url.scheme == "file" else _NAME
  return f"pip install {editable}{shlex.quote(f'{source}[{extra}]')}"
