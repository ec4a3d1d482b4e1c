"""Names of numbered classes, from a file.

Three forms, in UTF-8:

- one name per line, the first for class 0. If there are just as many names as classes and the highest number has none,
  they are named in order: 26 letters for EMNIST's classes 1 to 26.
- `NUMBER NAME`, with white space, a comma or a colon between.
- EMNIST's mapping files: `NUMBER CODE [CODE]`, the codes those of ASCII characters, the first of which is the name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence

from beam_retrain.transforms.core.errors import InputError

_NUMBERED = re.compile(r"(\d+)(?:\s*[,:;\t]\s*|\s+)(\S.*)")
_CODES = re.compile(r"\d+(?:\s+\d+)?")
_PRINTABLE = range(0x21, 0x7F)


def parse_class_names(data: bytes, path: str, classes: Collection[int]) -> dict[int, str]:
  """Returns the name of each class; `path` is for errors.

  Raises InputError if a class has no name, two have the same, or a name cannot be that of a folder.
  """
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise InputError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8.") from error
  lines = [unicodedata.normalize("NFC", line.strip()) for line in text.rstrip().splitlines()]
  numbered = [_NUMBERED.fullmatch(line) for line in lines]
  if lines and all(numbered):
    pairs = [(int(match[1]), match[2]) for match in numbered if match]
    if all(_CODES.fullmatch(name) and int(name.split()[0]) in _PRINTABLE for _, name in pairs):
      pairs = [(number, chr(int(name.split()[0]))) for number, name in pairs]
  else:
    starts = (
      sorted(classes) if len(lines) == len(classes) and max(classes, default=0) >= len(lines) else range(len(lines))
    )
    pairs = list(zip(starts, lines, strict=True))
  names: dict[int, str] = {}
  for line, (number, name) in enumerate(pairs, 1):
    if names.setdefault(number, name) != name:
      raise InputError(f"{path}: line {line} names {number} a second time: remove one of the two lines.")
    _check(name, f"{path}: line {line}")
  return _check_complete(names, path, classes)


def _check(name: str, where: str) -> None:
  """Checks that a name can be that of a class folder."""
  if not name:
    raise InputError(f"{where} is empty: give each class a name.")
  if name.startswith(".") or not name.isprintable() or "/" in name:
    clean = "".join(c if c.isprintable() and c != "/" else "-" for c in name).lstrip(".") or "dot"
    raise InputError(f"{where}: no folder can have the name {name!r}: write for example {clean!r}.")


def _check_complete(names: Mapping[int, str], path: str, classes: Collection[int]) -> dict[int, str]:
  """Returns the names of `classes` alone, in their order."""
  if missing := sorted(set(classes).difference(names)):
    raise InputError(
      f"{path} has {len(names)} names, and none for {_listed(missing)} of the labels {_listed(sorted(classes))}:"
      " add a line NUMBER NAME for each label."
    )
  named: dict[str, int] = {}
  for number in sorted(classes):
    if (other := named.setdefault(names[number], number)) != number:
      raise InputError(f"{path} names both {other} and {number} {names[number]!r}: give each label a name of its own.")
  return {number: name for name, number in named.items()}


def _listed(numbers: Sequence[int]) -> str:
  """Returns for example `0 to 9`, or `1, 3, 7`."""
  first, last = numbers[0], numbers[-1]
  if len(numbers) > 2 and last - first == len(numbers) - 1:
    return f"{first} to {last}"
  return ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
