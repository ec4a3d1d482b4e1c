"""Finds, opens and checks the IDX files of a folder.

Names are `SETtrain-images-idx3-ubyte` and alike, where SET may be empty, `emnist-letters-` or `qmnist-`; the testing
split is `t10k` or `test`; `.idx3` may stand for `-idx3`, and `-idx2-int` labels are QMNIST's. A file may be gzip,
whatever its name, and may lie in a folder of such a name, as some unpackers leave it.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple, cast

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images import idx
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING
from beam_retrain.transforms.io import files

_WORDS = {TRAINING: ("train",), TESTING: ("t10k", "test")}
_NAME = re.compile(
  r"(?P<set>(?!\.)(?:.*[-_.])?)(?P<word>train|t10k|test)[-_](?P<kind>images|labels)(?P<mark>[-.])"
  r"idx(?P<form>3-ubyte|1-ubyte|2-int)(?P<gz>\.gz)?"
)
# An object store lists by first letters; all objects would take too long.
_IDX = re.compile(r"(?!\.).*[-.]idx[1-4]-[a-z]+(?:\.gz)?")  # of any data set and split
_REMOTE_PREFIXES = ("train-", "t10k-", "test-", "emnist-", "qmnist-", "kmnist-", "fashion-")
_KINDS = ("images", "labels")
_GZIP_MAGIC = b"\x1f\x8b"


class IdxFile(NamedTuple):
  """An IDX file with a checked header."""

  stat: files.FileStat
  header: idx.IdxHeader
  is_gzip: bool

  @property
  def path(self) -> str:
    return self.stat.path


class _Found(NamedTuple):
  """A file by its name; the smallest is preferred."""

  is_gzip: bool
  depth: int
  form: str
  mark: str
  path: str


class IdxFolder:
  """The IDX files that a folder holds, by their names.

  `name`: of the data set, such as `emnist-letters-`; mostly empty.
  """

  def __init__(self, path: str):
    """Lists the folder.

    Raises InputError if it holds several data sets.
    """
    self.path = path
    self._found: dict[tuple[str, str, str], list[_Found]] = {}
    for name, folder in _list_names(path):
      if match := _NAME.fullmatch(name):
        found = _Found(bool(match["gz"]), len(folder), match["form"], match["mark"], files.join(path, *folder, name))
        self._found.setdefault((match["set"], match["word"], match["kind"]), []).append(found)
    sets = sorted({name for name, _, _ in self._found})
    if len(sets) > 1 and "" not in sets:
      raise InputError(
        f"{path} holds {len(sets)} data sets ({', '.join(name.rstrip('-_.') for name in sets)}): move the files of one"
        " into a folder of its own."
      )
    self.name = sets[0] if sets else ""
    self.holds_any = bool(sets)

  def find(self, split: str, kind: str) -> IdxFile | None:
    """Returns the file of a split's images or labels, or None.

    Raises InputError if it is no such file, or there is another with another count.
    """
    found = [one for word in _WORDS[split] for one in sorted(self._found.get((self.name, word, kind), []))]
    if not found:
      return None
    first, *others = found
    chosen = open_header(first.path, kind)
    for other in others:
      try:
        header = open_header(other.path, kind).header
      except InputError:  # half a download beside the whole file
        continue
      if header.count != chosen.header.count:
        raise InputError(
          f"{first.path} has {idx.describe(chosen.header)}, but {other.path} has {idx.describe(header)}: remove the one"
          " that does not belong here."
        )
    return chosen

  def left_out(self) -> list[str]:
    """Returns the sorted names of files of other data sets and splits."""
    test = next(
      (word for word in _WORDS[TESTING] if any((self.name, word, kind) in self._found for kind in _KINDS)), ""
    )
    read = {f"{self.name}{word}" for word in (*_WORDS[TRAINING], test)}
    names = [name for name in files.files_in(self.path) if _IDX.fullmatch(name)]
    return [name for name in names if not (match := _NAME.fullmatch(name)) or match["set"] + match["word"] not in read]

  def get(self, split: str, kind: str) -> IdxFile:
    """Returns what `find` returns; InputError if it is None."""
    if file := self.find(split, kind):
      return file
    word = "test" if self.name and split == TESTING else _WORDS[split][0]
    form = {"images": "idx3-ubyte", "labels": "idx1-ubyte"}[kind]
    names = [f"{self.name}{word}-{kind}{mark}{form}{gz}" for gz in ("", ".gz") for mark in ("-", ".")]
    raise InputError(f"{self.path} has no file of {split} {kind}: add one of {', '.join(names)}.")


def is_idx_name(name: str) -> bool:
  return _NAME.fullmatch(name) is not None


def _list_names(path: str) -> Iterable[tuple[str, tuple[str, ...]]]:
  """Yields (file name, folders below `path`) of possible IDX files."""
  if not files.is_local(path):
    for stat in itertools.chain.from_iterable(files.match_in(path, f"{prefix}**") for prefix in _REMOTE_PREFIXES):
      *folder, name = stat.path.removeprefix(f"{path}/").split("/")
      if len(folder) == 0 or (len(folder) == 1 and _NAME.fullmatch(folder[0])):
        yield name, tuple(folder)
    return
  for name in _list_local(path):
    if _NAME.fullmatch(name):
      inner = os.path.join(path, name)
      if os.path.isdir(inner):
        yield from ((below, (name,)) for below in _list_local(inner) if os.path.isfile(os.path.join(inner, below)))
      else:
        yield name, ()


def _list_local(path: str) -> list[str]:
  try:
    return sorted(os.listdir(path))
  except OSError:
    return []


def open_header(path: str, kind: str) -> IdxFile:
  """Checks a file's header and, unless it is gzip, its length."""
  stat = files.stat(path)
  if stat is None:
    raise InputError(f"{path} does not exist: give the folder again.")
  with open_decompressed(path) as file:
    is_gzip = isinstance(file, gzip.GzipFile)
    header = idx.read_header(file, path, {"images": 3, "labels": 1}[kind])
  if not is_gzip:
    idx.check_length(header, stat.size_bytes, path)
  return IdxFile(stat, header, is_gzip)


@contextlib.contextmanager
def open_decompressed(path: str) -> Iterator[BinaryIO]:
  """Opens a file, which is gzip if it begins so."""
  with files.open_to_read(path) as stored:
    is_gzip = stored.read(2) == _GZIP_MAGIC
    stored.seek(0)
    if is_gzip:
      with _GzipReader(stored, path) as file:
        yield cast(BinaryIO, file)
    else:
      yield stored


class _GzipReader(gzip.GzipFile):
  """Reports the file and the byte of damaged data."""

  def __init__(self, stored: BinaryIO, path: str):
    super().__init__(fileobj=stored, mode="rb")
    self._path = path

  def read(self, size: int | None = -1) -> bytes:
    try:
      return super().read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
      raise InputError(
        f"{self._path}: byte {self.tell()} after decompression: the gzip data is damaged ({error}): get the file again."
      ) from error


def read_blocks(file: IdxFile, items_per_block: int) -> Iterator[bytes]:
  """Yields all of a file's data in blocks of whole items."""
  with open_decompressed(file.path) as stored:
    header = idx.read_header(stored, file.path)
    for start in range(0, header.count, items_per_block):
      yield idx.read_items(stored, header, start, min(items_per_block, header.count - start), file.path)
    idx.check_end(stored, header, file.path)


def read_classes(folder: str) -> list[int]:
  """Returns the numbers of all classes of a folder's labels, sorted."""
  found: set[int] = set()
  idx_folder = IdxFolder(folder)
  for split in (TRAINING, TESTING):
    if file := idx_folder.find(split, "labels"):
      for block in read_blocks(file, 1 << 16):
        found.update(idx.decode_labels(block, file.header))
  return sorted(found)
