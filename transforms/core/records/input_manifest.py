"""Input manifests: CSV files that list images, labels and optionally splits.

| column      | content                                                                                |
|-------------|----------------------------------------------------------------------------------------|
| `file_name` | local or remote (`gs://`, `s3://`, ...) path, absolute or relative to the manifest     |
| `label`     | the image's class, as a folder's name would be                                         |
| `split`     | `training`, `validation` or `testing`, or `train`, `val`, `valid`, `test`, in any case |

`split` is optional as a column, not in single rows. The format is that of `csv_format`; white space around cells does
not count. Other columns are ignored; cells are not unescaped. A backslash separates folders, as in Windows, unless
there is a file with one in its name.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import is_label, normalise
from beam_retrain.transforms.core.records.csv_format import TableKind, open_table, validate_once
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, VALIDATION

FILE_NAME, LABEL, SPLIT = "file_name", "label", "split"
_SPLITS = {
  **{split: split for split in (TRAINING, VALIDATION, TESTING)},
  **{"train": TRAINING, "val": VALIDATION, "valid": VALIDATION, "test": TESTING},
}
_OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # a drive, or a share
_KIND = TableKind(
  columns={FILE_NAME: "the images' paths", LABEL: "their labels"},
  first_line=f"{FILE_NAME},{LABEL} or {FILE_NAME},{LABEL},{SPLIT}",
  other="give a CSV manifest of images, or a folder",
  without_rows="add a row per image",
  optional=(SPLIT,),
  skips_spaces=True,
)


class ManifestRow(NamedTuple):
  """One image's row; see `key_of` and `path_of`.

  `line` is its last line in the file, 1 for the first; `split` is None without the column. `cell` is what the label was
  made of.
  """

  line: int
  key: str
  label: str
  path: str
  split: str | None
  cell: str


class Summary(NamedTuple):
  """Sorted labels, splits, and number of images of a manifest.

  `schemes` maps schemes of remote paths (`gs`, `s3`, ...) to (line, path) of the first; `cells` are what the labels
  were made of.
  """

  labels: list[str]
  splits: frozenset[str]
  images: int
  schemes: dict[str, tuple[int, str]]
  cells: frozenset[str]


def read_images(lines: Iterable[str], source: str) -> Iterator[ManifestRow]:
  """Yields the rows of a manifest, one line at a time.

  `lines` come from a file opened with `newline=""`, `source` is its absolute path. Raises InputError as `open_table`,
  or for an invalid cell; `csv_format.by_key` checks that keys are unique.
  """
  header, rows = open_table(lines, source, _KIND)
  validate_once(header, (FILE_NAME, LABEL, SPLIT), source)
  folder = posixpath.dirname(source)
  home = path_of("x", folder)[:-1]
  of_name, of_label, of_split = (header.index(name) if name in header else -1 for name in (FILE_NAME, LABEL, SPLIT))
  labels: dict[str, str] = {}
  for line, cells in rows:
    name, cell, given = cells[of_name].strip(), cells[of_label].strip(), cells[of_split] if of_split >= 0 else None
    if "\\" in name or name[1:2] == ":":
      name = _from_windows(name, folder, f"{source}: line {line}")
    # Most names are plain paths below the manifest's folder, which need no joining.
    is_plain = name[:1] not in (".", "/") and "//" not in name and "/." not in name and name[-1:] != "/"
    key, path = (name, f"{home}{name}") if is_plain else (key_of(name, folder), path_of(name, folder))
    if not key or "\0" in name:
      raise InputError(f"{source}: line {line}: {name!r} is not a valid {FILE_NAME}: give the path of an image.")
    if cell not in labels and not is_label(labels.setdefault(cell, normalise(cell))):
      raise InputError(
        f"{source}: line {line}: {labels[cell]!r} cannot be a label: give a name without control characters."
      )
    split = _SPLITS.get(given.strip().lower()) if given is not None else None
    if given is not None and not split:
      raise InputError(
        f"{source}: line {line}: {given!r} is not a valid {SPLIT}: give {TRAINING}, {VALIDATION} or {TESTING} in every"
        " row, or remove the column."
      )
    yield ManifestRow(line, key, labels[cell], path, split, cell)


def _from_windows(name: str, folder: str, where: str) -> str:
  """Returns a path with slashes, unless its file is there as spelled."""
  path = path_of(name, folder)
  if "://" in name or ("://" not in path and "\0" not in path and os.path.lexists(path)):
    return name
  if _OF_WINDOWS.match(name):
    raise InputError(
      f"{where}: {name} is a path of a Windows drive or share, which is not known here: give paths relative to the"
      " manifest."
    )
  return name.replace("\\", "/")


def summarise(images: Iterable[ManifestRow]) -> Summary:
  """Summarises a manifest; keeps only its labels in memory."""
  labels: set[str] = set()
  splits: set[str | None] = set()
  schemes: dict[str, tuple[int, str]] = {}
  cells: set[str] = set()
  count = 0
  for image in images:
    count += 1
    labels.add(image.label)
    cells.add(image.cell)
    splits.add(image.split)
    scheme, remote, _ = image.path.partition("://")
    if remote:
      schemes.setdefault(scheme, (image.line, image.path))
  return Summary(sorted(labels), frozenset(split for split in splits if split), count, schemes, frozenset(cells))


def path_of(name: str, folder: str) -> str:
  """Returns an image's path; a relative one starts at the manifest's folder."""
  if "://" in name or name.startswith("/"):
    return name
  if "://" not in folder:
    return os.path.join(folder, name)
  scheme, _, rest = folder.partition("://")
  return f"{scheme}://{posixpath.normpath(posixpath.join(rest, name))}"  # object stores do not resolve `..`


def key_of(name: str, folder: str) -> str:
  """Returns an image's key: its normalised path relative to the manifest's folder.

  Of images elsewhere, the path without scheme, leading `/` and `..`: keys are never absolute. Empty if `name` is not a
  file name.
  """
  (home, inside), (scheme, path) = _parts(folder), _parts(path_of(name, folder))
  inside = f"{inside.rstrip('/')}/"
  if not name or name.endswith("/"):
    return ""
  if scheme == home and path.startswith(inside):
    return path.removeprefix(inside)
  return "/".join(part for part in _parts(name)[1].split("/") if part not in ("", ".", ".."))


def _parts(path: str) -> tuple[str, str]:
  """Returns the scheme, empty for a local path, and the normalised path."""
  scheme, remote, rest = path.partition("://")
  return (scheme, posixpath.normpath(rest)) if remote else ("", posixpath.normpath(path))
