"""Paths that TensorFlow takes literally.

TensorFlow restores variables from the files that match a path (`GetMatchingPaths`, tensorflow/core/platform/
file_system_helper.cc), so that `[`, `]`, `*`, `?` and a backslash in a folder's name are a pattern; and its paths are
UTF-8. `plain_path` gives any other path a name that is neither: a symbolic link, for as long as TensorFlow needs it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from beam_retrain.transforms.core.errors import InputError

_SPECIAL = frozenset("[]*?\\")


def is_plain(path: str) -> bool:
  """Returns whether TensorFlow takes a path literally."""
  try:
    path.encode()
  except UnicodeEncodeError:  # a name in another encoding than UTF-8
    return False
  return not _SPECIAL.intersection(path)


def plain_root() -> str:
  """Returns a plain folder for temporary files; may raise InputError."""
  for root in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
    if is_plain(root) and os.access(root, os.W_OK):
      return root
  raise InputError(
    f"TensorFlow would take the folder of temporary files {tempfile.gettempdir()} for a pattern: set TMPDIR to a folder"
    " without [, ], *, ? and backslashes in its path."
  )


@contextlib.contextmanager
def plain_path(path: str) -> Iterator[str]:
  """Yields a plain path of an existing local file or folder."""
  if is_plain(path):
    yield path
    return
  with tempfile.TemporaryDirectory(prefix="beam-retrain-", dir=plain_root()) as folder:
    link = os.path.join(folder, "link")
    os.symlink(os.path.abspath(path), link)
    yield link
