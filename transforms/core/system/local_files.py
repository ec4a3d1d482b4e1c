"""Local files, by the names that `transforms.io.files` has for those of any file system.

Writes are atomic: a temporary name beside the final one, then a rename over it.
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
  """Returns whether a folder holds nothing at all, or is not there."""
  return not os.path.exists(folder) or (os.path.isdir(folder) and not os.listdir(folder))


def make_folder(folder: str) -> None:
  """Makes a folder and its parents, unless they are there."""
  os.makedirs(folder, exist_ok=True)


def find_in(folder: str, pattern: str) -> list[str]:
  """Returns the paths of the files directly in a folder whose names fit a pattern; the folder's own name is none."""
  found = glob.glob(os.path.join(glob.escape(folder), pattern), include_hidden=True)
  return [path for path in found if not os.path.isdir(path)]


def read_bytes(path: str) -> bytes:
  with open(path, "rb") as file:
    return file.read()


def sha256(path: str) -> str:
  """Returns the SHA-256 of a file's bytes, 64 hex digits."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def becomes(path: str) -> Iterator[str]:
  """Yields a temporary name beside `path`; the file gets its name when the block ends well."""
  # Only the temporary name is random; it never outlives the write.
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
  with becomes(path) as temporary, open(temporary, "wb", buffering=0) as file:
    while rest:
      rest = rest[file.write(rest) :]


def write_text(path: str, text: str) -> None:
  write_bytes(path, text.encode())


@contextlib.contextmanager
def folder_becomes(folder: str) -> Iterator[str]:
  """Yields the path of a folder to be made, which takes the place of `folder` when the block ends well."""
  temporary = f"{folder}.tmp"
  shutil.rmtree(temporary, ignore_errors=True)
  yield temporary
  shutil.rmtree(folder, ignore_errors=True)
  os.replace(temporary, folder)


def delete(paths: Iterable[str]) -> None:
  """Deletes files and whole folders; what is not there is no error."""
  for path in paths:
    if os.path.isdir(path) and not os.path.islink(path):
      shutil.rmtree(path)
    else:
      with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
