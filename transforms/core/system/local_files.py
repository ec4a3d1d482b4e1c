"""Local files, with the functions that `transforms.io.files` has for any file system.

Writes are atomic: to a temporary name in the same folder, which is then renamed.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator

TEMPORARY = ".tmp-"


def exists(path: str) -> bool:
  return os.path.exists(path)


def is_empty(folder: str) -> bool:
  """Returns whether a folder is empty or missing."""
  return not os.path.exists(folder) or (os.path.isdir(folder) and not os.listdir(folder))


def make_folder(folder: str) -> None:
  """Creates a folder and its parents if they do not exist."""
  os.makedirs(folder, exist_ok=True)


def find_in(folder: str, pattern: str) -> list[str]:
  """Returns the files (not folders) in a folder that match a pattern."""
  matches = glob.glob(os.path.join(glob.escape(folder), pattern), include_hidden=True)
  return [path for path in matches if not os.path.isdir(path)]


def read_bytes(path: str) -> bytes:
  with open(path, "rb") as file:
    return file.read()


def sha256(path: str) -> str:
  """Returns the SHA-256 of a file's bytes, 64 hex digits."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_file(path: str) -> Iterator[str]:
  """Yields a temporary path that is renamed to `path` on success."""
  temporary = f"{path}{TEMPORARY}{os.urandom(16).hex()}"
  try:
    yield temporary
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(temporary)
    raise


def write_bytes(path: str, data: bytes) -> None:
  """Writes a whole file, in as few system calls as possible."""
  rest = memoryview(data)
  with atomic_file(path) as temporary, open(temporary, "wb", buffering=0) as file:
    while rest:
      rest = rest[file.write(rest) :]


def write_text(path: str, text: str) -> None:
  write_bytes(path, text.encode())


@contextlib.contextmanager
def atomic_folder(folder: str) -> Iterator[str]:
  """Yields the path of a new folder that replaces `folder` on success."""
  temporary = f"{folder}.tmp"
  shutil.rmtree(temporary, ignore_errors=True)
  yield temporary
  shutil.rmtree(folder, ignore_errors=True)
  os.replace(temporary, folder)


def delete(paths: Iterable[str]) -> None:
  """Deletes files and whole folders; missing ones are ignored."""
  for path in paths:
    if os.path.isdir(path) and not os.path.islink(path):
      shutil.rmtree(path)
    else:
      with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
