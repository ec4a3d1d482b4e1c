"""Checks before any work that a command's buckets can be reached.

Fails within seconds with one sentence; Beam itself would retry for minutes and print a traceback each time.
"""

from __future__ import annotations

from collections.abc import Iterator

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.io import files

_PROBE = ".beam-retrain-writes"


def check_reachable(*arguments: object) -> None:
  """Checks that each `s3://` and `gs://` bucket can be listed.

  `arguments` are a command's: paths and lists of paths; others are ignored. Raises InputError if a bucket does not
  exist, its credentials are refused or missing, or the server does not answer.
  """
  checked = set()
  for path in _paths(arguments):
    scheme, _, rest = path.partition("://")
    store, bucket = files.HTTP_STORES.get(scheme), (scheme, rest.partition("/")[0])
    if store is None or bucket in checked:
      continue
    checked.add(bucket)
    if not files.is_supported(path):
      raise InputError(f"{path}: {scheme}:// needs packages that are not installed: pip install '{store.packages}'.")
    store.check_reachable(path)


def check_writable(folder: str) -> None:
  """Writes and deletes a probe object in a remote folder; may raise InputError."""
  path = f"{folder}/{_PROBE}"
  files.write_bytes(path, b"")
  try:
    files.delete([path])
  except PermissionError as error:
    raise InputError(
      f"these credentials cannot delete objects in {folder}, which replacing a model needs: allow it, or give another"
      f" {flag('output')}."
    ) from error


def _paths(argument: object) -> Iterator[str]:
  if isinstance(argument, str):
    yield argument
  elif isinstance(argument, list | tuple):
    for entry in argument:
      yield from _paths(entry)
