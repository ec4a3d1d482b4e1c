"""Local files, with the functions that `transforms.io.files` has for any file system.

Writes are atomic: to a temporary name in the same folder, which is then renamed.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import hashlib
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import BinaryIO

from beam_retrain.transforms.core.errors import InputError, naming_full_disk

TEMPORARY = ".tmp-"
LOCK_FILE = ".lock"
"""In an output folder while a command writes it; no part of the output."""

_LARGE = 8 << 20  # bytes
_digests: dict[tuple[int, int, int, int], str] = {}  # of large files that were read here


def shown(path: str) -> str:
  """Returns a path relative to the current folder, if inside."""
  relative = os.path.relpath(path)
  return path if relative.startswith("..") or os.getcwd() == os.sep else relative


def is_local(path: str) -> bool:
  return "://" not in path


def check_local(command: str, *paths: str | None) -> None:
  """Raises InputError for a path in an object store."""
  for path in paths:
    if path and not is_local(path):
      raise InputError(f"{path} is remote, but {command} reads local files only: give a local copy.")


def exists(path: str) -> bool:
  return os.path.exists(path)


def overlap(path: str, other: str) -> bool:
  """Returns whether two paths are equal, or one lies in the other."""
  return is_within(path, other) or is_within(other, path)


def is_within(path: str, folder: str) -> bool:
  if ("://" in path) != ("://" in folder):
    return False
  inner, outer = (f"{(each if '://' in each else os.path.realpath(each)).rstrip('/')}/" for each in (path, folder))
  return inner.startswith(outer)


def is_empty(folder: str) -> bool:
  """Returns whether a folder is missing, or empty but for a lock.

  Temporary files, which a killed command has left, do not count.
  """
  if not os.path.isdir(folder):
    return not os.path.exists(folder)
  return all(name == LOCK_FILE or TEMPORARY in name for name in os.listdir(folder))


def make_folder(folder: str) -> None:
  """Creates a folder and its parents if they do not exist."""
  os.makedirs(folder, exist_ok=True)


def find_in(folder: str, pattern: str) -> list[str]:
  """Returns the files (not folders) in a folder that match a pattern."""
  matches = glob.glob(os.path.join(glob.escape(folder), pattern), include_hidden=True)
  return [path for path in matches if not os.path.isdir(path)]


def list_sizes(folder: str, left_out: Collection[str] = ()) -> Iterator[tuple[str, int]]:
  """Yields (relative path, size in bytes) of each file below a folder.

  Links to folders are not followed. `left_out` are names of subfolders.
  """
  for parent, folders, names in os.walk(folder):
    if parent == folder:
      folders[:] = [name for name in folders if name not in left_out]
    for name in names:
      path = os.path.join(parent, name)
      if (size_bytes := size_of(path)) is not None:
        yield os.path.relpath(path, folder), size_bytes


def size_of(path: str) -> int | None:
  """Returns a file's size in bytes, or None without a file."""
  try:
    return os.stat(path).st_size if not os.path.isdir(path) else None
  except OSError:
    return None


def sizes(paths: Sequence[str]) -> list[int | None]:
  return list(map(size_of, paths))


def identity(path: str) -> str:
  """Returns what a change of a file changes; "" without one.

  Size and time of modification can be set back, the time of the last change of status cannot. The inode is another one
  where folders swapped their names, which changes no time of a file in them. A copy has another one, too, though its
  bytes are the same.
  """
  try:
    status = os.stat(path)
  except OSError:
    return ""
  return repr((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))


def read_bytes(path: str) -> bytes:
  with open(path, "rb") as file:
    return file.read()


def read_lines(path: str) -> Iterator[str]:
  with open(path, encoding="utf-8", newline="") as file:
    yield from file


def sha256(path: str) -> str:
  """Returns the SHA-256 of a file's bytes, 64 hex digits.

  A large one's is remembered by the process while nobody writes to it: a job opens its trunk by five names.
  """
  with open(path, "rb") as file:
    status = os.fstat(file.fileno())
    known = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if digest := _digests.get(known):
      return digest
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  # A write that follows at once may not change the time of modification.
  if status.st_size >= _LARGE and status.st_mtime < time.time() - 1:
    _digests[known] = digest
  return digest


@contextlib.contextmanager
def atomic_file(path: str) -> Iterator[str]:
  """Yields a temporary path that is renamed to `path` on success."""
  temporary = f"{path}{TEMPORARY}{os.urandom(16).hex()}"
  try:
    with naming_full_disk(path):
      yield temporary
      os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(temporary)
    raise


@contextlib.contextmanager
def write_atomically(path: str) -> Iterator[BinaryIO]:
  """Opens a temporary file that becomes `path` if the block succeeds."""
  with atomic_file(path) as temporary, open(temporary, "wb") as file:
    yield file


def write_bytes(path: str, data: bytes) -> None:
  """Writes a whole file, in as few system calls as possible."""
  rest = memoryview(data)
  with atomic_file(path) as temporary, open(temporary, "wb", buffering=0) as file:
    while rest:
      rest = rest[file.write(rest) :]


def write_text(path: str, text: str) -> None:
  write_bytes(path, text.encode())


def link_or_copy(source: str, target: str) -> None:
  """Gives a file a second name, or copies it.

  For files that are only ever replaced, never written in place. A link has the owner and permissions of its file: where
  a new file would have others, as in a cache that another user fills, it is copied.
  """
  source = os.path.realpath(source)
  status, folder = os.stat(source), os.stat(os.path.dirname(target))
  if status.st_uid == os.geteuid() and status.st_mode & 0o666 == folder.st_mode & 0o666:
    with contextlib.suppress(OSError):  # another file system, or one without links
      os.link(source, target)
      return
  shutil.copyfile(source, target)


@contextlib.contextmanager
def atomic_folder(folder: str) -> Iterator[str]:
  """Yields the path of a new folder that replaces `folder` on success."""
  temporary = f"{folder}.tmp"
  shutil.rmtree(temporary, ignore_errors=True)
  with naming_full_disk(folder):
    yield temporary
  shutil.rmtree(folder, ignore_errors=True)
  os.replace(temporary, folder)


def sync(folder: str) -> None:
  """Waits until all data of the folder's file system is on disk.

  One call for a whole output: a file's own `fsync` takes milliseconds, and an output may have 70,000.
  """
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):  # it is Linux's
      os.sync()
    elif libc.syncfs(descriptor) != 0:
      error = ctypes.get_errno()
      raise OSError(error, os.strerror(error), folder)
  finally:
    os.close(descriptor)


def delete(paths: Iterable[str]) -> None:
  """Deletes files and whole folders; missing ones are ignored."""
  for path in paths:
    if os.path.isdir(path) and not os.path.islink(path):
      shutil.rmtree(path)
    else:
      with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
