"""Scratch folders that are named after the output that they serve."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator

from beam_retrain.transforms.core.errors import InputError, flag

_BEFORE: list[tuple[str | None, str | None]] = []  # result of `_places` outside the folders in use


@contextlib.contextmanager
def scratch_folder(output: str) -> Iterator[str]:
  """Yields a new folder for temporary files; deletes it.

  Also deletes those that killed runs left: the caller holds the lock of `output`. Raises InputError if its path is
  not UTF-8.
  """
  place = output if "://" in output else os.path.realpath(output)
  try:
    named = f"{platform.node()}:{place}".encode()
  except UnicodeEncodeError as error:  # nor could records, tables or TensorFlow name it
    raise InputError(
      f"{flag('output')} {output}: its path is not UTF-8: rename the folder, or give another."
    ) from error
  prefix = f"beam-retrain-{hashlib.sha256(named).hexdigest()[:12]}-"
  for left in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), f"{prefix}*")):
    if left != tempfile.tempdir:
      shutil.rmtree(left, ignore_errors=True)
  folder = tempfile.mkdtemp(prefix=prefix)
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def own_temporary_files(output: str) -> Iterator[None]:
  """Puts temporary files of this process and its children into a `scratch_folder`."""
  with scratch_folder(output) as folder:
    _BEFORE.append(_places())
    _put(folder, folder)
    try:
      yield
    finally:
      _put(*_BEFORE.pop())


@contextlib.contextmanager
def outside() -> Iterator[None]:
  """Puts temporary files that outlive the output's command where they were before."""
  inside = _places()
  _put(*(_BEFORE[0] if _BEFORE else inside))
  try:
    yield
  finally:
    _put(*inside)


def _places() -> tuple[str | None, str | None]:
  return tempfile.tempdir, os.environ.get("TMPDIR")


def _put(own: str | None, of_children: str | None) -> None:
  tempfile.tempdir = own
  if of_children is None:
    os.environ.pop("TMPDIR", None)
  else:
    os.environ["TMPDIR"] = of_children
