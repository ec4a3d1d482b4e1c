"""`COMPLETED`: what a finished folder holds, so that readers can check it.

JSON lines: first `{"stage": ..., "version": 1}`; then, for each file, `[path, size in bytes, SHA-256]`, where the path
is relative and the digest has 64 hex digits; last the SHA-256 of all lines before. Outputs of 0.4 have an empty file.
Hidden and temporary files are not listed, except shard reports; nor are subfolders that are outputs of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, Protocol

from beam_retrain.transforms.core.records.schema import COMPLETED_FILE, INFO_FILE, REPORTS_FOLDER
from beam_retrain.transforms.core.records.shards import WRITTEN, ShardReport
from beam_retrain.transforms.core.system.local_files import TEMPORARY
from beam_retrain.transforms.core.system.locks import Claim, claim_of
from beam_retrain.transforms.core.system.prefetch import batched

_REPORTS = (f"{REPORTS_FOLDER}/*.json", f"*/{REPORTS_FOLDER}/*.json")
_TEMP_FOLDER = "temp"
_IMAGES = (".jpg", ".png")  # of `convert`: whoever reads one compares it with the list; people move and delete them
_DATA = (".tfrecord", *_IMAGES)  # large, many, and checked by whoever reads them
_REMOTE_BYTES = 1 << 20  # larger remote files are not downloaded for a check
_TOGETHER = 1000


class Entry(NamedTuple):
  path: str
  size_bytes: int
  sha256: str


class Files(Protocol):
  """A file system: `local_files` or `transforms.io.files`."""

  def is_local(self, path: str) -> bool: ...
  def exists(self, path: str) -> bool: ...
  def is_empty(self, folder: str) -> bool: ...
  def find_in(self, folder: str, pattern: str) -> list[str]: ...
  def list_sizes(self, folder: str, left_out: Collection[str]) -> Iterator[tuple[str, int]]: ...
  def sizes(self, paths: Sequence[str]) -> list[int | None]: ...
  def sha256(self, path: str) -> str: ...
  def read_bytes(self, path: str) -> bytes: ...
  def read_lines(self, path: str) -> Iterator[str]: ...
  def make_folder(self, folder: str) -> None: ...
  def write_text(self, path: str, text: str) -> None: ...
  def write_bytes(self, path: str, data: bytes) -> None: ...
  def write_atomically(self, path: str) -> contextlib.AbstractContextManager[BinaryIO]: ...
  def delete(self, paths: Iterable[str]) -> None: ...
  def sync(self, folder: str) -> None: ...


class DamagedListError(Exception):
  """`COMPLETED` is not as it was written."""


def write_list(
  folder: str, stage: str, files: Files, entries: Iterable[Entry] = (), claim: Claim | None = None
) -> None:
  """Writes `COMPLETED`, once all other files are on disk.

  Raises InputError if another command has taken the folder.

  Args:
    entries: of all files; by default they are made from the folder.
    claim: of the command on the folder, in another process.
  """
  files.sync(folder)
  digest = hashlib.sha256()
  with files.write_atomically(f"{folder}/{COMPLETED_FILE}") as file:
    for value in itertools.chain([{"stage": stage, "version": 1}], entries or _entries(folder, files)):
      line = f"{json.dumps(value)}\n".encode()
      digest.update(line)
      file.write(line)
    file.write(f"{json.dumps(digest.hexdigest())}\n".encode())
    (claim or claim_of(folder)).check(files.read_bytes)
  files.sync(folder)


def _entries(folder: str, files: Files) -> Iterator[Entry]:
  """Yields an entry per file; for converted images from the reports."""
  digests: dict[str, str] = {}  # of the shards' files
  trees: set[str] = set()  # top-level folders that shards have filled
  for path in sorted(path for pattern in _REPORTS for path in files.find_in(folder, pattern)):
    try:
      report = ShardReport.from_json(files.read_bytes(path).decode())
    except (ValueError, TypeError, KeyError):  # not ours
      continue
    place = path.removeprefix(f"{folder}/").partition(REPORTS_FOLDER)[0]
    digests[place + report.file] = report.sha256
    for written, size_bytes, sha256 in report.extra.get(WRITTEN, ()):
      entry = Entry(posixpath.normpath(place + written), size_bytes, sha256)
      yield entry
      trees.add(entry.path.partition("/")[0])
  outputs: set[str] = set()  # subfolders that are outputs of their own
  listed: list[tuple[str, int]] = []
  for path, size_bytes in files.list_sizes(folder, trees):
    if path.endswith(f"/{INFO_FILE}"):
      outputs.add(path.removesuffix(INFO_FILE))
    if _is_listed(path):
      listed.append((path, size_bytes))
  for path, size_bytes in sorted(listed):
    if not path.startswith(tuple(outputs)):
      yield Entry(path, size_bytes, digests.get(path) or files.sha256(f"{folder}/{path}"))


def _is_listed(path: str) -> bool:
  hidden = [part for part in path.split("/") if part.startswith(".") and part != REPORTS_FOLDER]
  return not (hidden or path == COMPLETED_FILE or path.startswith(f"{_TEMP_FOLDER}/") or TEMPORARY in path)


def read_stage(folder: str, files: Files) -> str:
  """Returns the stage that completed a folder, or "" without a list."""
  try:
    first = next(files.read_lines(f"{folder}/{COMPLETED_FILE}"), "{}")
    return str(json.loads(first).get("stage", ""))
  except (OSError, ValueError, AttributeError):
    return ""


def has_list(folder: str, files: Files) -> bool:
  """Whether a finished folder lists its files, unlike those of 0.4."""
  return files.sizes([f"{folder}/{COMPLETED_FILE}"]) != [0]


def read_list(folder: str, files: Files) -> Iterator[Entry]:
  """Yields the entries of a list; finally raises DamagedListError if damaged."""
  digest, last = hashlib.sha256(), ""
  try:
    for number, line in enumerate(files.read_lines(f"{folder}/{COMPLETED_FILE}")):
      value = json.loads(line)
      if isinstance(value, str):
        last = value
        continue
      digest.update(line.encode())
      if number:
        path, size_bytes, sha256 = value
        if path.startswith(("/", "../")) or path != posixpath.normpath(path):
          raise ValueError(f"{path} is not in the folder")
        yield Entry(path, int(size_bytes), sha256)
  except (ValueError, TypeError, OSError) as error:
    raise DamagedListError from error
  if last != digest.hexdigest():
    raise DamagedListError


def find_faults(
  folder: str, files: Files, *, with_data: bool = False, names: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
  """Yields (path, what is wrong) for each listed file that has changed.

  Sizes are checked; digests too, unless the file is large and its readers check it. Converted images are left out.

  Args:
    with_data: whether to check the digests of all files, converted images included.
    names: only these files; empty: all.
  """
  try:
    chosen = (
      entry
      for entry in read_list(folder, files)
      if (not names or entry.path in names) and (with_data or not entry.path.endswith(_IMAGES))
    )
    for entries in batched(chosen, _TOGETHER):
      found = files.sizes([f"{folder}/{entry.path}" for entry in entries])
      for entry, size_bytes in zip(entries, found, strict=True):
        if fault := _fault(folder, entry, size_bytes, files, with_data):
          yield entry.path, fault
  except DamagedListError:
    yield COMPLETED_FILE, "has changed since it was written"


def _fault(folder: str, entry: Entry, size_bytes: int | None, files: Files, with_data: bool) -> str:
  if size_bytes is None:
    return "is missing"
  if size_bytes != entry.size_bytes:
    return f"has {size_bytes:,} bytes instead of {entry.size_bytes:,}"
  path = f"{folder}/{entry.path}"
  is_read = with_data or (not path.endswith(_DATA) and (files.is_local(path) or size_bytes <= _REMOTE_BYTES))
  try:
    return "has changed since it was written" if is_read and files.sha256(path) != entry.sha256 else ""
  except OSError as error:
    return f"cannot be read ({error.strerror})"
