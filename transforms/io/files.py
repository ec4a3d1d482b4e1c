"""File access of the Beam jobs, for local and remote paths.

Writes are atomic and repeatable. Local ones go to a temporary name, then a rename: a killed bundle leaves only a
temporary file, which `sweep` removes. Objects appear whole or not at all; they have no folders, only names with
slashes.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib
import importlib.util
import io
import os
import platform
import posixpath
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from stat import S_ISDIR
from typing import BinaryIO, cast

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, S3Options

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.run.next_steps import STORE_FLAGS
from beam_retrain.transforms.core.run.run_info import SECRET
from beam_retrain.transforms.core.system import listing, local_files
from beam_retrain.transforms.io.object_stores import beam
from beam_retrain.transforms.io.object_stores.base import FileStat, HttpStore, ObjectStore, split_path, threads
from beam_retrain.transforms.io.object_stores.gs import GoogleStorage
from beam_retrain.transforms.io.object_stores.s3 import S3

HTTP_STORES: dict[str, HttpStore] = {"s3": S3(), "gs": GoogleStorage()}
"""By the scheme of their paths."""
_OTHERS: ObjectStore = beam
_IN_MEMORY_BYTES = 1 << 24
_GLOB = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def _store(path: str) -> ObjectStore:
  """Raises InputError if the packages of `s3://` or `gs://` are missing."""
  store = HTTP_STORES.get(FileSystems.get_scheme(path))
  if store:
    check_supported(path)
  return store or _OTHERS


def join(folder: str, *names: str) -> str:
  check_supported(folder)
  return FileSystems.join(folder, *names)


def split(path: str) -> tuple[str, str]:
  """Returns (folder, name)."""
  check_supported(path)
  return FileSystems.split(path)


def absolute(path: str) -> str:
  """Returns an absolute local path, or a remote path without trailing slashes.

  Workers may have another current folder than the user. Raises InputError if a remote path has an empty step, `.` or
  `..`.
  """
  if is_local(path):
    return os.path.abspath(path)
  scheme, _, names = path.partition("://")
  if scheme in HTTP_STORES and any(step in ("", ".", "..") for step in names.rstrip("/").split("/")):
    raise InputError(f"{path} contains '.', '..' or an empty step, which object stores do not resolve: write it out.")
  return f"{scheme}://{names.rstrip('/')}"


def shown(path: str) -> str:
  """Returns a path relative to the current folder, if inside."""
  return local_files.shown(path) if is_local(path) else path


def is_local(path: str) -> bool:
  return FileSystems.get_scheme(path) is None


def exists(path: str) -> bool:
  return os.path.exists(path) if is_local(path) else _store(path).stat(path) is not None


def stat(path: str) -> FileStat | None:
  """Returns a file's status; None for a folder or if missing."""
  if not is_local(path):
    return _store(path).stat(path)
  try:
    status = os.stat(path)
  except OSError:
    return None
  return FileStat(path, status.st_size, status.st_mtime) if not S_ISDIR(status.st_mode) else None


def stat_each(paths: Sequence[str]) -> list[FileStat | None]:
  """Returns `stat` of each file; remote ones in parallel."""
  return list(map(stat, paths) if all(map(is_local, paths)) else threads().map(stat, paths))


def sizes(paths: Sequence[str]) -> list[int | None]:
  """Returns the sizes of files in bytes; None for a missing one."""
  return [status.size_bytes if status else None for status in stat_each(paths)]


def list_sizes(folder: str, left_out: Collection[str] = ()) -> Iterator[tuple[str, int]]:
  """Yields (relative path, size in bytes) of each file; see `local_files`."""
  if is_local(folder):
    yield from local_files.list_sizes(folder, left_out)
    return
  for status in list_tree(folder):
    path = status.path.removeprefix(f"{folder}/")
    if path.partition("/")[0] not in left_out:
      yield path, status.size_bytes


def stat_or_broken_link(path: str) -> FileStat | None:
  """Lists a broken link as an empty file: its reader reports it."""
  status = stat(path)
  if status is None and os.path.islink(path) and not os.path.exists(path):
    return FileStat(path, 0, os.lstat(path).st_mtime)
  return status


def use_options(options: PipelineOptions | None = None) -> None:
  """Sets Beam's options, which `s3://` needs before there is a pipeline."""
  FileSystems.set_options(options or PipelineOptions(flags=[]))
  given = options.view_as(S3Options).get_all_options(drop_default=True, current_only=True) if options else {}
  flags = {f"--{name}": value for name, value in given.items() if f"--{name}" not in SECRET}
  STORE_FLAGS[:] = [name if value is True else f"{name}={value}" for name, value in flags.items()]


def _is_supported(path: str) -> bool:
  """Returns whether the packages to read such a path are installed."""
  if path.startswith("gs://"):
    with contextlib.suppress(ImportError):  # registers it, if that was left out of Beam's import
      importlib.import_module("apache_beam.io.gcp.gcsfilesystem")
  try:
    FileSystems.get_filesystem(path)
  except (ValueError, BeamIOError):
    return False
  # Beam registers `s3://` even without boto3.
  return FileSystems.get_scheme(path) != "s3" or importlib.util.find_spec("boto3") is not None


def check_supported(path: str, where: str = "") -> None:
  """Raises InputError if nothing that is installed can read such a path.

  The message begins with `where`.
  """
  if is_local(path) or _is_supported(path):
    return
  scheme = FileSystems.get_scheme(path)
  if store := HTTP_STORES.get(scheme):
    problem = f"needs packages that are not installed: {store.install}"
  elif scheme.lower() in ("http", "https", "ftp"):
    problem = "is a web address, and none is read: download what is there, and give its path"
  elif scheme == "file":
    problem = f"is an address, not a path: give {path.removeprefix('file://')}"
  else:
    problem = f"cannot be read: {scheme}:// is none of the file systems that Beam has here: give another path"
  raise InputError(f"{where}{path} {problem}.")


def open_to_read(path: str) -> BinaryIO:
  """Opens a file without decompressing it."""
  if is_local(path):
    return open(path, "rb")  # five times as fast as Beam's
  return _store(path).open_to_read(path)


def read_bytes(path: str) -> bytes:
  with open_to_read(path) as file:
    return file.read()


def read_lines(path: str) -> Iterator[str]:
  """Yields the lines of a UTF-8 file, for `csv`."""
  with open_to_read(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
    yield from text


def sha256(path: str) -> str:
  """Returns the SHA-256 of a file's bytes, 64 hex digits."""
  if is_local(path):
    return local_files.sha256(path)
  with open_to_read(path) as file:
    return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()


def match_in(folder: str, pattern: str) -> list[FileStat]:
  """Returns the files below a folder that match a pattern, sorted.

  `*` stays within one folder, `**` crosses folders. Special characters in the folder's own name are literal.
  """
  if is_local(folder):
    # Beam's own would stat the whole tree below the first `*`, such as 70,000 images.
    paths = glob.glob(join(glob.escape(folder), pattern), recursive=True, include_hidden=True)
    return sorted(filter(None, map(stat_or_broken_link, paths)))
  plain, *_ = re.split(r"[*?]", pattern)
  parts = re.split(r"(\*\*|\*|\?)", pattern)
  fits = re.compile("".join(_GLOB.get(part, re.escape(part)) for part in parts), re.DOTALL)
  below = _list_prefix(f"{folder}/{plain}")
  return sorted(status for status in below if fits.fullmatch(status.path.removeprefix(f"{folder}/")))


def _list_prefix(prefix: str) -> Iterator[FileStat]:
  """Yields all objects with a prefix, sorted by name, without folder markers."""
  return (status for status in _store(prefix).list_prefix(prefix) if not status.path.endswith("/"))


def find_in(folder: str, pattern: str) -> list[str]:
  """Returns the paths of the files that `match_in` finds."""
  return [status.path for status in match_in(folder, pattern)]


def list_tree(folder: str) -> Iterator[FileStat]:
  """Yields all files below a folder, sorted by path; see `walk`."""
  if is_local(folder):
    return filter(None, map(stat_or_broken_link, sorted(walk(folder))))
  return _list_prefix(f"{folder}/")


def subfolders(folder: str, up: list[str] | None = None) -> list[str]:
  """Returns the names of the subfolders that may hold images, sorted.

  There are none in a folder that does not exist. `up` is as of `listing.walk`.
  """
  if is_local(folder):
    return listing.subfolders(folder, up)
  names = (name.removesuffix("/") for name in _store(folder).children(folder) if name.endswith("/"))
  return sorted(name for name in names if name and not listing.is_rubbish_folder(name))


def files_in(folder: str) -> list[str]:
  """Returns the sorted names of a folder's files that may be images."""
  if is_local(folder):
    return listing.files_in(folder)
  names = (name for name in _store(folder).children(folder) if not name.endswith("/"))
  return sorted(name for name in names if name and not listing.is_rubbish_file(name))


def walk(folder: str) -> Iterator[str]:
  """Yields the paths of all files below a folder, unordered; see `listing`."""
  if is_local(folder):
    return (entry.path for entry in listing.walk(folder))
  return (status.path for status in list_tree(folder))


def walk_images(folder: str) -> Iterator[str]:
  """Yields the files that may be images, by paths within the folder.

  They are unordered; see `listing.walk`.
  """
  if is_local(folder):
    start = len(join(folder, ""))
    return (entry.path[start:] for entry in listing.walk(folder, images=True))
  return (inside for inside, _ in _list_objects(folder))


def list_images(folder: str, up: list[str] | None = None) -> Iterator[tuple[str, FileStat]]:
  """Yields (path within the folder, status) of each file of `walk_images`."""
  if not is_local(folder):
    yield from _list_objects(folder)
    return
  start = len(join(folder, ""))
  for entry in listing.walk(folder, images=True, up=up):
    try:
      status = entry.stat()
      yield entry.path[start:], FileStat(entry.path, status.st_size, status.st_mtime)
    except OSError:
      if entry.is_symlink():  # its reader reports it
        yield entry.path[start:], FileStat(entry.path, 0, entry.stat(follow_symlinks=False).st_mtime)


def _list_objects(folder: str) -> Iterator[tuple[str, FileStat]]:
  for status in list_tree(folder):
    inside = posixpath.normpath(status.path.removeprefix(f"{folder}/"))
    if not listing.is_rubbish(inside):
      yield inside, status


def is_empty(folder: str) -> bool:
  """Returns whether a folder is missing, or empty but for a lock."""
  if is_local(folder):
    return local_files.is_empty(folder)
  return all(status.path == f"{folder}/{local_files.LOCK_FILE}" for status in list_tree(folder))


def check_seen(folder: str) -> None:
  """Raises InputError if this worker does not see a local folder."""
  if is_local(folder) and not os.path.isdir(folder):
    raise InputError(
      f"the worker on {platform.node()} does not see the folder {folder}: give paths on a shared disk or in a bucket"
      " that all workers can reach."
    )


def make_folder(folder: str) -> None:
  """Creates a local folder and its parents if they are missing."""
  if is_local(folder):
    local_files.make_folder(folder)


@contextlib.contextmanager
def write_atomically(path: str) -> Iterator[BinaryIO]:
  """Opens a temporary file that becomes `path` if the block succeeds."""
  if is_local(path):
    with local_files.write_atomically(path) as file:
      yield file
  else:
    # An exception would close Beam's writer and leave a truncated object.
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
      yield cast(BinaryIO, file)
      file.seek(0)
      upload(path, cast(BinaryIO, file))


def upload(path: str, file: BinaryIO) -> None:
  """Uploads an open local file from its current position."""
  _store(path).upload(path, file)


def write_bytes(path: str, data: bytes) -> None:
  """Writes a whole file atomically, with fewer system calls."""
  if is_local(path):
    local_files.write_bytes(path, data)
  else:
    upload(path, io.BytesIO(data))


def write_each(contents: Sequence[tuple[str, bytes]]) -> None:
  """Writes (path, bytes) each, remote ones in parallel, atomically."""
  if all(is_local(path) for path, _ in contents):  # for small files, threads cost more than they gain
    for path, data in contents:
      write_bytes(path, data)
  else:
    list(threads().map(lambda content: write_bytes(*content), contents))


def write_text(path: str, text: str) -> None:
  write_bytes(path, text.encode())


def delete(paths: Iterable[str]) -> None:
  """Deletes files and whole folders, if they exist; no patterns, no buckets.

  Raises ValueError if a remote path is a whole bucket, or has an empty step, `.` or `..`.
  """
  for path in paths:
    if is_local(path):  # Beam would read `[a]` as a pattern and delete `a`
      local_files.delete([path])
      continue
    path = path.rstrip("/")
    bucket, name = split_path(path)
    if not bucket or any(step in ("", ".", "..") for step in name.split("/")):
      raise ValueError(f"refusing to delete {path}")
    delete_objects([*(status.path for status in _list_prefix(f"{path}/")), path])


def delete_objects(paths: list[str]) -> None:
  """Deletes objects of one bucket, if they exist, and nothing below them."""
  if paths:
    _store(paths[0]).delete(paths)


def sync(folder: str) -> None:
  """Waits until a local folder is on disk; objects are when written."""
  if is_local(folder):
    local_files.sync(folder)


def sweep(folder: str, *, below: bool = False) -> None:
  """Deletes temporary files of killed workers in a folder, or below."""
  if is_local(folder):  # objects have no temporary names
    delete(find_in(folder, f"{'**/' * below}*{local_files.TEMPORARY}*"))


def check_reachable(paths: Iterable[str]) -> None:
  """Checks that each `s3://` and `gs://` bucket can be listed, in seconds.

  Beam itself would retry for minutes. Raises InputError if a bucket does not exist, its credentials are refused or
  missing, or the server does not answer.
  """
  checked = set()
  for path in paths:
    scheme, _, rest = path.partition("://")
    store, bucket = HTTP_STORES.get(scheme), (scheme, rest.partition("/")[0])
    if store is None or bucket in checked:
      continue
    checked.add(bucket)
    check_supported(path)
    store.check_reachable(path)


def check_writable(folder: str) -> None:
  """Writes and deletes a remote probe object; may raise InputError."""
  path = f"{folder}/.beam-retrain-writes"
  write_bytes(path, b"")
  try:
    delete([path])
  except PermissionError as error:
    raise InputError(
      f"these credentials cannot delete objects in {folder}, which replacing a model needs: allow it, or give another"
      f" {flag('output')}."
    ) from error
