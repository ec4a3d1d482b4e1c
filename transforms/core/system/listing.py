"""Which files of a folder every command takes for images.

Names decide only what is no image of the data set: hidden files and folders, those of file managers, NAS and archivers,
and the texts that data sets come with. All other files are opened, whatever their extension.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from beam_retrain.transforms.core.errors import InputError

EXTENSIONS = ("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp")
"""Of images that can be decoded, in any case; needed only to tell images from other files."""

_NAMED = re.compile(rf".*\.(?:{'|'.join(EXTENSIONS)})", re.IGNORECASE | re.DOTALL)
# In lower case. `._x` of macOS, `.ipynb_checkpoints`, `.@__thumb` and `.Trash-1000` are hidden.
_RUBBISH_FOLDERS = {
  *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),  # Synology's and QNAP's
  *("__macosx", "paxheader", "paxheaders", "lost+found", "$recycle.bin", "system volume information"),
}
_RUBBISH_FILES = {
  *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
  *("license", "licence", "readme", "copying", "notice", "authors"),
}
_TEXTS = ("readme", "license", "licence", "copying", "notice", "authors", "credits", "attribution", "citation")
_TEXT = re.compile(r"[a-z]+(?:[._ -].*)?\.(?:txt|md|rst|html?|pdf|rtf|bib|cff)", re.DOTALL)


_ARCHIVE = re.compile(
  r".+\.(?:(?P<tar>tar(?:\.(?:gz|bz2|xz|zst|lz4|lzma))?|tgz|tbz2?|txz|tzst)|zip|7z|rar)", re.I | re.S
)


def is_named_as_image(path: str) -> bool:
  return _NAMED.fullmatch(path) is not None


def is_archive(path: str) -> bool:
  return _ARCHIVE.fullmatch(path) is not None


def is_tar(path: str) -> bool:
  """Returns whether a path is named as a tar, compressed or not."""
  matched = _ARCHIVE.fullmatch(path)
  return matched is not None and matched["tar"] is not None


def is_rubbish_folder(name: str) -> bool:
  lower = name.lower()
  return lower.startswith((".", "paxheaders.")) or lower in _RUBBISH_FOLDERS


def is_rubbish_file(name: str) -> bool:
  lower = name.lower()
  return (
    lower.startswith(".")
    or lower in _RUBBISH_FILES
    or (lower.startswith(_TEXTS) and _TEXT.fullmatch(lower) is not None)
  )


def is_rubbish(path: str) -> bool:
  """Returns whether a path within a folder is rubbish."""
  *folders, name = path.split("/")
  return is_rubbish_file(name) or any(is_rubbish_folder(folder) for folder in folders if folder.strip("."))


def walk(folder: str, images: bool = False, up: list[str] | None = None) -> Iterator[os.DirEntry[str]]:
  """Yields the files below a folder, unordered; with `images`, no rubbish.

  Links are followed, but no folder is visited twice, and none that a link up the tree leads to; such links are added to
  `up`. Raises InputError if a folder cannot be listed: its images would be lost silently.
  """
  visited: set[str] = set()
  waiting = [(folder, _real_parents(folder))]
  while waiting:
    parent, above = waiting.pop()
    real = os.path.realpath(parent)
    if real in visited:  # two links lead here
      continue
    visited.add(real)
    folders = []
    for entry in _scan(parent):
      if not _is_folder(entry):
        if not (images and is_rubbish_file(entry.name)):
          yield entry
      elif images and is_rubbish_folder(entry.name):
        continue
      elif not entry.is_symlink():
        folders.append((entry.path, above))
      elif not _leads_up(entry, (*above, real), up):
        folders.append((entry.path, (*above, real)))
    waiting.extend(sorted(folders, reverse=True))


def subfolders(folder: str, up: list[str] | None = None) -> list[str]:
  """Returns the sorted names of the subfolders that may hold images."""
  above = _real_parents(folder)
  return sorted(
    entry.name
    for entry in (_scan(folder) if os.path.isdir(folder) else ())
    if _is_folder(entry)
    and not is_rubbish_folder(entry.name)
    and not (entry.is_symlink() and _leads_up(entry, above, up))
  )


def files_in(folder: str) -> list[str]:
  """Returns the sorted names of a folder's files, without rubbish."""
  entries = _scan(folder) if os.path.isdir(folder) else ()
  return sorted(entry.name for entry in entries if not _is_folder(entry) and not is_rubbish_file(entry.name))


def left_out(beside: Mapping[str, Sequence[str]], up: Sequence[str]) -> str:
  """Returns a line on what is left out, or "".

  `beside` is what -> paths.
  """
  parts = [
    f"{what} ({len(paths):,}, such as {min(paths)})"
    for what, paths in {**beside, "links that lead up the tree": up}.items()
    if paths
  ]
  return f"left out: {'; '.join(parts)}" if parts else ""


def _scan(folder: str) -> Iterator[os.DirEntry[str]]:
  try:
    with os.scandir(folder) as entries:
      yield from entries  # a folder may hold millions
  except FileNotFoundError:
    return
  except OSError as error:
    if is_rubbish_folder(os.path.basename(folder)):
      return
    raise InputError(
      f"the folder {folder} cannot be listed ({error.strerror}): make it readable, or remove it."
    ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link to itself, for example: its reader reports it
    return False


def _real_parents(folder: str) -> tuple[str, ...]:
  path = Path(os.path.abspath(folder))
  return tuple({os.path.realpath(each) for each in (path, *path.parents)})


def _leads_up(link: os.DirEntry[str], above: Sequence[str], up: list[str] | None) -> bool:
  target = os.path.join(os.path.realpath(link.path), "")
  leads_up = any(f"{each}/".startswith(target) for each in above)
  if leads_up and up is not None:
    up.append(link.path)
  return leads_up
