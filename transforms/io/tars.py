"""A WebDataset tar: its images, their labels and where they are.

A sample is `NAME.jpg` (or .jpeg, .jpe, .jfif, .png, .gif, .bmp, .webp) and `NAME.cls` (a class index or name) or
`NAME.txt` (a label); the `.cls` wins. An index is a number, as in the `webdataset` package: of `007` the label is `7`.
NAME ends at the first dot after the last slash, as there; an image whose NAME has nothing else, as of `2024.05.jpg`, is
quarantined. Links are followed. Other members are ignored, and so are other files (.parquet, _stats.json) and rubbish,
see `listing`.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
import tarfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import is_label, normalise
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING
from beam_retrain.transforms.core.system.listing import EXTENSIONS, is_rubbish, is_rubbish_file, is_tar
from beam_retrain.transforms.io import files

_LABELS = ("cls", "txt")  # the first wins
_COMPRESSED = {  # first bytes -> program
  b"\x1f\x8b": "gzip",
  b"BZh": "bzip2",
  b"\xfd7zXZ": "xz",
  b"\x28\xb5\x2f\xfd": "zstd",
  b"\x04\x22\x4d\x18": "lz4",
}
_MAX_LABEL_BYTES = 1 << 12
_NAME = re.compile(
  rf"((?:.*/)?[^./][^./]*)\.({'|'.join((*EXTENSIONS, *_LABELS))})", re.DOTALL | re.IGNORECASE | re.ASCII
)
_DOTTED = re.compile(rf"((?:.*/)?[^./][^./]*)\.[^/]*\.(?:{'|'.join(EXTENSIONS)})", re.DOTALL | re.IGNORECASE | re.ASCII)
_BLOCK, _READ = 512, 1 << 20
_MAX_LINKS = 40  # one behind the other, as in Linux
_NOWHERE = -1  # where data start that are not there


class Tar(NamedTuple):
  """A tar file; `key`: path in the data set, `split`: its folder's."""

  split: str | None
  key: str
  path: str
  size_bytes: int
  modified_secs: float


class TarMember(NamedTuple):
  """An image or a label in a tar file, from byte `start`."""

  name: str
  label: str
  start: int
  size_bytes: int


Entry = TarMember | Quarantined


class LabelTexts(NamedTuple):
  """What labels are made of: names, and numbers of classes."""

  names: set[str]
  numbers: set[str]


def find_tars(path: str) -> list[Tar]:
  """Lists the tars of a data set, sorted; empty for another format.

  Raises InputError if there are some both inside and outside of `training` and `testing`.
  """
  if is_tar(path) and (stat := files.stat(path)):
    return [Tar(None, os.path.basename(path), *stat)]
  folders = files.subfolders(path)
  if not {TRAINING, TESTING}.issuperset(folders):
    return []
  tars = _tars_in(path, None)
  in_splits = [
    tar
    for split in folders
    if not files.subfolders(files.join(path, split))
    for tar in _tars_in(files.join(path, split), split)
  ]
  if tars and in_splits:
    raise InputError(f"{path} has tars beside its folders {' and '.join(folders)}: move them into {TRAINING}.")
  return tars or in_splits


def _tars_in(folder: str, split: str | None) -> list[Tar]:
  names = [name for name in files.files_in(folder) if is_tar(name)]
  paths = [files.join(folder, name) for name in names]
  return [
    Tar(split, f"{split}/{name}" if split else name, *(stat or files.FileStat(path, 0, 0.0)))  # its reader reports it
    for name, path, stat in zip(names, paths, files.stat_each(paths), strict=True)
  ]


def index_tar(tar: Tar, texts: LabelTexts | None = None) -> Iterator[Entry]:
  """Yields the images of a tar, then its fault, if any.

  Adds to `texts` what the labels are made of. Raises InputError if the tar cannot be read, or repeats a name.
  """
  index = _Index(tar, texts or LabelTexts(set(), set()))
  try:
    with files.open_to_read(tar.path) as file:
      _check_not_compressed(tar.path, file)
      with tarfile.open(fileobj=file, mode="r:") as members:
        fault = index.scan(file, members)
  except (OSError, tarfile.TarError) as error:
    raise InputError(f"{tar.path} cannot be read as a tar ({error}): replace or remove it.") from error
  index.follow_links()
  for name, sample in index.samples.items():
    yield from _entries_of(tar, os.path.basename(name), sample)
  # Of a sample with other images, these are other fields.
  yield from (image for name, image in index.dotted if name not in index.samples)
  if fault:
    yield Quarantined(tar.key, tar.size_bytes, Reason.TRUNCATED, fault, tar.split or "")


def _check_not_compressed(path: str, file: BinaryIO) -> None:
  """Raises InputError for a compressed tar, whatever its name."""
  start = file.read(8)
  file.seek(0)
  program = next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None)
  if program:
    plain = re.sub(r"\.(?:tar\.)?[^.]+$", "", path)
    plain = f"{plain}-plain.tar" if path.lower().endswith(".tar") else f"{plain}.tar"
    how = f"`{program} -dc {shlex.quote(path)} > {shlex.quote(plain)}`" if files.is_local(path) else f"with {program}"
    raise InputError(
      f"{path} is compressed and cannot be read in parts: decompress it ({how}), and move the compressed one elsewhere."
    )


class _Index:
  """The images, labels and links of one tar, by their names."""

  def __init__(self, tar: Tar, texts: LabelTexts):
    self.samples: dict[str, dict[str, TarMember]] = {}  # NAME -> extension -> member
    self.dotted: list[tuple[str, Quarantined]] = []  # NAME and fault of images with dots before their endings
    self._tar, self._texts = tar, texts
    self._links: dict[str, str] = {}  # path of a link -> path that it leads to

  def scan(self, file: BinaryIO, members: tarfile.TarFile) -> str:
    """Reads all headers, and labels; returns the fault of the tar."""
    try:
      while member := members.next():
        members.members = []  # type: ignore[attr-defined]  # frees memory
        if not member.isdir() and not is_rubbish(f"{posixpath.dirname(member.name)}/"):
          self._add(file, member)
    except tarfile.ReadError as error:
      return f"the tar is cut off ({error}): what followed, if anything, is lost"
    file.seek(members.offset)
    if file.read(_BLOCK) != bytes(_BLOCK):
      return f"the tar is damaged or cut off at byte {members.offset}: what followed, if anything, is lost"
    if any(data.strip(b"\0") for data in iter(lambda: file.read(_READ), b"")):
      return f"the tar ends at byte {members.offset}, but another one follows, which is not read: give each by itself"
    return ""

  def _add(self, file: BinaryIO, member: tarfile.TarInfo) -> None:
    # Names that are not UTF-8 cannot be written to a record or a CSV.
    name = member.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    is_link = member.issym() or member.islnk()
    if not (is_link or member.isreg()):
      return
    if not (matched := _NAME.fullmatch(member.name)):
      if matched := _DOTTED.fullmatch(member.name):
        detail = "its name has a dot before its ending, where names of WebDataset end: rename it and its label"
        image = Quarantined(f"{self._tar.key}/{name}", member.size, Reason.BAD_LABEL, detail, self._tar.split or "")
        self.dotted.append((matched[1], image))
      return
    sample, extension = self.samples.setdefault(matched[1], {}), matched[2].lower()
    if extension in sample:
      raise InputError(f"{self._tar.path} contains {member.name} twice: keys must differ; write it again.")
    if is_link:
      above = posixpath.dirname(name) if member.issym() else ""
      self._links[posixpath.normpath(name)] = posixpath.normpath(posixpath.join(above, member.linkname))
    label = ""
    if extension in _LABELS and member.isreg() and member.size <= _MAX_LABEL_BYTES:
      file.seek(member.offset_data)
      label = self._read_label(file.read(member.size), extension)
    start = _NOWHERE if is_link or member.issparse() else member.offset_data
    sample[extension] = TarMember(name, label, start, member.size)

  def _read_label(self, data: bytes, extension: str) -> str:
    """Returns the label; an empty string if unusable."""
    try:
      text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
      return ""
    if not is_label(text):
      return ""
    is_number = extension == "cls" and text.isdecimal()
    (self._texts.numbers if is_number else self._texts.names).add(text)
    return str(int(text)) if is_number else normalise(text)

  def follow_links(self) -> None:
    """Gives links the data that they lead to."""
    if not self._links:
      return
    paths = {posixpath.normpath(member.name): member for sample in self.samples.values() for member in sample.values()}
    for sample in self.samples.values():
      for extension, member in sample.items():
        path, steps = posixpath.normpath(member.name), 0
        while path in self._links and steps < _MAX_LINKS:
          path, steps = self._links[path], steps + 1
        if steps and (target := paths.get(path)):
          sample[extension] = target._replace(name=member.name)


def _entries_of(tar: Tar, name: str, sample: Mapping[str, TarMember]) -> Iterator[Entry]:
  images = [member for extension, member in sample.items() if extension in EXTENSIONS]
  label = next((sample[extension] for extension in _LABELS if extension in sample), None)
  for image in images:
    reason = Reason.BAD_LABEL
    if image.start == _NOWHERE:
      reason = Reason.UNREADABLE
      detail = "the tar has it as a link to what is not there, or as a sparse file: write the tar again"
    elif image.start + image.size_bytes > tar.size_bytes:
      reason, detail = Reason.TRUNCATED, "the tar is cut off inside this image"
    elif label is None:
      detail = f"the tar has no {name}.cls or .txt beside it"
    elif label.label:
      yield image._replace(label=label.label)
      continue
    else:
      detail = f"{os.path.basename(label.name)} is empty, or not one line of text: it cannot be a label"
    yield Quarantined(f"{tar.key}/{image.name}", image.size_bytes, reason, detail, tar.split or "")
  if label and not images and not is_rubbish_file(os.path.basename(label.name)):
    detail = f"a label without an image: the tar has no {name}.jpg, .png, .gif, .bmp or .webp"
    yield Quarantined(f"{tar.key}/{label.name}", 0, Reason.NOT_AN_IMAGE, detail, tar.split or "")
