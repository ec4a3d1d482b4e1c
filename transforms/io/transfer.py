"""Copies folders between the local disk and object stores.

TensorFlow and OpenVINO read and write local files only. Downloads go to the trunks' cache, once per machine.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.io import cache, files
from beam_retrain.transforms.io.object_stores.base import threads

_DOWNLOADS = "trunks/brought"
_CONTENTS = "folder"  # the cache adds a file beside it
_KEPT_SECS = 7 * 24 * 60 * 60.0


def download(folder: str) -> str:
  """Returns a local copy of a remote folder; may raise InputError."""
  if files.is_local(folder):
    return folder
  listed = list(files.list_tree(folder))
  if not listed:
    raise InputError(f"{folder} is empty or does not exist: give the folder that beam-retrain wrote.")
  digest = hashlib.sha256(json.dumps([folder, listed]).encode()).hexdigest()

  def write(empty: str) -> None:
    get_folder(folder, os.path.join(empty, _CONTENTS))
    cache.remove_old(glob.iglob(os.path.join(glob.escape(cache.folder()), _DOWNLOADS, "*")), _KEPT_SECS)

  entry = cache.get_or_create(f"{_DOWNLOADS}/{digest}", write)
  with contextlib.suppress(OSError):  # the cache may belong to another user
    os.utime(entry)
  return os.path.join(entry, _CONTENTS)


@contextlib.contextmanager
def replace_folder(folder: str) -> Iterator[str]:
  """Yields an empty local folder that replaces `folder` on success."""
  if not files.is_local(folder):
    with tempfile.TemporaryDirectory(prefix="beam-retrain-") as made:
      yield made
      put_folder(made, folder)
    return
  with local_files.atomic_folder(folder) as temporary:
    os.makedirs(temporary)
    yield temporary


def put_folder(made: str, folder: str) -> None:
  """Copies a local folder to another place, whose other files it deletes."""
  if files.is_local(folder):
    with local_files.atomic_folder(folder) as temporary:
      shutil.copytree(made, temporary)
    return
  targets = {files.join(folder, os.path.relpath(path, made)): path for path in files.walk(made)}
  list(threads().map(put_file, targets.values(), targets))
  files.delete_objects([stat.path for stat in files.list_tree(folder) if stat.path not in targets])


def put_file(path: str, target: str) -> None:
  with open(path, "rb") as file:
    files.upload(target, file)


def get_folder(folder: str, made: str) -> None:
  """Downloads a remote folder to a new local one; may raise InputError."""

  def get(path: str) -> None:
    target = place_of(path, folder, made)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with files.open_to_read(path) as source, open(target, "wb") as file:
      shutil.copyfileobj(source, file)

  list(threads().map(get, files.walk(folder)))


def place_of(path: str, folder: str, made: str) -> str:
  """Returns an object's path in a copy; may raise InputError."""
  steps = path.removeprefix(f"{folder}/").split("/")
  if any(step in ("", ".", "..") for step in steps):
    raise InputError(f"{path} cannot be downloaded, as no file can have that name: rename or delete the object.")
  return os.path.join(made, *steps)
