"""`corrections.csv`: what people say of labels, one line for each image.

| column     | what                                                                                     |
|------------|------------------------------------------------------------------------------------------|
| file_name  | the image's key, a safe cell as in `predictions.csv`                                     |
| sha256     | of the image's bytes, 64 hex digits: a correction holds for these, whatever their name   |
| label_was  | the image's label at the time                                                            |
| label      | its label now; empty with `drop` and `unsure`                                            |
| decision   | `keep`, `relabel`, `drop` (an image of no class) or `unsure`                             |
| note       | free text                                                                                |

`relabel` and `drop` correct an image; the others change nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError, listed
from beam_retrain.transforms.core.labels import normalise
from beam_retrain.transforms.core.records.csv_format import (
  TableKind,
  csv_text,
  escape_cell,
  open_table,
  unescape_cell,
  validate_once,
)
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import Image

KEEP, RELABEL, DROP, UNSURE = "keep", "relabel", "drop", "unsure"
DECISIONS = (KEEP, RELABEL, DROP, UNSURE)
COLUMNS = ["file_name", "sha256", "label_was", "label", "decision", "note"]
CORRECTED = "corrected"
"""In a report's `extra`: the `Tally` of a shard."""
CORRECTIONS_FILE, UNUSED_FILE = "corrections.csv", "unused_corrections.csv"
OWNED = (CORRECTIONS_FILE, UNUSED_FILE)
"""In the output of a job with corrections: a copy of them, and those that met no image."""
UNUSED_HEADER = ["file_name", "sha256", "label_was", "label", "decision", "reason"]

_OTHER = "give another --corrections"
_KIND = TableKind(
  columns={
    "file_name": "the images' keys",
    "sha256": "the SHA-256 of their bytes",
    "label_was": "their labels before",
    "label": "their labels now",
    "decision": "what was decided",
  },
  first_line=",".join(COLUMNS),
  other=_OTHER,
  without_rows="",
  optional=("note",),
)
_SHA256 = re.compile("[0-9a-f]{64}")
_HASH_DIGITS = 24  # 96 bits tell a billion images apart

ImageId = tuple[str, str]
"""Key and SHA-256 of an image."""
ReadLines = Callable[[str], Iterable[str]]


class Correction(NamedTuple):
  """A decision on one image's label.

  `label` is empty with `drop` and `unsure`.
  """

  label_was: str
  label: str
  decision: str
  note: str = ""


def read_rows(lines: Iterable[str], source: str) -> Iterator[tuple[int, ImageId, Correction]]:
  """Yields (line, image, decision) in the file's order; `source` is its path.

  Raises InputError if it is no `corrections.csv`, or a line is damaged.
  """
  header, rows = open_table(lines, source, _KIND)
  validate_once(header, COLUMNS, source)
  if unknown := [name for name in header if name not in COLUMNS]:
    raise InputError(f"{source} has a column {unknown[0]!r}, which corrections do not have: remove it.")
  places = [header.index(name) if name in header else -1 for name in COLUMNS]
  for line, cells in rows:
    key, sha256, label_was, label, decision, note = (unescape_cell(cells[at]) if at >= 0 else "" for at in places)
    correction = Correction(label_was, label, decision, note)
    if fault := _find_fault(sha256.lower(), correction):
      raise InputError(f"{source}: line {line}: {fault}: mend or remove the line.")
    yield line, (key, sha256.lower()), correction


def _find_fault(sha256: str, correction: Correction) -> str:
  if not _SHA256.fullmatch(sha256):
    return "the sha256 is not 64 hex digits"
  if correction.decision not in DECISIONS:
    return f"the decision {correction.decision!r} is none of {', '.join(DECISIONS)}"
  if correction.decision == RELABEL and not normalise(correction.label):
    return "relabel needs a label"
  if correction.decision in (DROP, UNSURE) and correction.label:
    return f"{correction.decision} has the label {correction.label!r}, which says something else"
  return ""


def corrections_csv(decided: Mapping[ImageId, Correction]) -> str:
  """Returns the text of the file."""
  rows = ([*map(escape_cell, (key, sha256, *decision))] for (key, sha256), decision in decided.items())
  return csv_text([COLUMNS, *rows])


class Corrections(NamedTuple):
  """What a file corrects."""

  labels: Mapping[bytes, str]  # SHA-256, 32 bytes -> label now; empty for an image of no class
  named: Mapping[str, tuple[bytes, ...]]  # key -> SHA-256, 32 bytes, of its images at the time
  lines: Mapping[str, int]  # label now -> a line that gives it
  labels_was: frozenset[str]  # of the corrected images at the time
  digest: str  # of all that decides something, 64 hex digits; order and notes do not matter

  @classmethod
  def parse(cls, lines: Iterable[str], source: str) -> Corrections:
    """Reads a file; its lines come from `files.read_lines`.

    Raises InputError if a line is damaged, or two decide differently on the same image.
    """
    decided: dict[bytes, tuple[str, int]] = {}
    labels: dict[bytes, str] = {}
    named: dict[str, tuple[bytes, ...]] = {}
    first: dict[str, int] = {}
    labels_was: set[str] = set()
    total = 0
    for line, (key, sha256), correction in read_rows(lines, source):
      if correction.decision == UNSURE:
        continue
      digest, label = bytes.fromhex(sha256), normalise(correction.label)
      before, earlier = decided.setdefault(digest, (label, line))
      if before != label:
        raise InputError(
          f"{source}: lines {earlier} and {line} decide differently on the same image, {key!r}: keep one of them."
        )
      if correction.decision == KEEP:
        continue
      labels[digest] = label
      first.setdefault(label, line)
      labels_was.add(normalise(correction.label_was))
      if digest not in (known := named.get(key, ())):
        named[key] = (*known, digest)
        total += int.from_bytes(hashlib.sha256(json.dumps([key, sha256, label]).encode()).digest())
    first.pop("", None)
    return cls(labels, named, first, frozenset(labels_was), f"{total % (1 << 256):064x}")

  def check_labels(self, known: Collection[str], source: str, images: str) -> None:
    """Raises InputError for a label that is none of the `known` ones."""
    for label, line in self.lines.items():
      if label not in known:
        raise InputError(
          f"{source}: line {line}: {label!r} is none of the labels of {images} ({listed(sorted(known))}): give one of"
          " these, or add a class with images of its own first."
        )


@dataclasses.dataclass
class Tally:
  """What corrections did to some images."""

  relabelled: int = 0  # images whose label changed
  # Digits of the SHA-256 of each image that a correction is of
  met: list[str] = dataclasses.field(default_factory=list)
  # Keys of images that were corrected when they had other bytes
  changed: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Correcting:
  """Corrects the images of a shard by their bytes, and counts."""

  path: str  # of the file, which each worker reads once with `read_lines`
  digest: str  # see `Corrections`
  read_lines: ReadLines
  tally: Tally = dataclasses.field(default_factory=Tally, compare=False)

  def begun(self) -> Correcting:
    """Returns the same with a tally of its own."""
    return dataclasses.replace(self, tally=Tally())

  def load(self) -> Corrections:
    """Raises InputError if the file has changed."""
    return _load(self.path, self.digest, self.read_lines)

  def by_name(self, key: str, label: str | None) -> str | None:
    """Returns the label of an image whose bytes are unchanged."""
    corrections = self.load()
    digests = corrections.named.get(key, ())
    return label if label is None or not digests else corrections.labels[digests[-1]] or None

  def label_of(self, key: str, label: str, *sha256: str) -> str | None:
    """Returns an image's label now, and counts it.

    None for an image of no class. `sha256`: of its bytes in each of its forms.
    """
    corrections = self.load()
    digests = [bytes.fromhex(one) for one in sha256]
    if any(digest not in digests for digest in corrections.named.get(key, ())):
      self.tally.changed.append(key)
    for digest in digests:
      if (now := corrections.labels.get(digest)) is not None:
        self.tally.met.append(digest.hex()[:_HASH_DIGITS])
        self.tally.relabelled += now not in ("", label)
        return now or None
    return label

  def correct(self, image: Image) -> Image | Quarantined:
    label = self.label_of(image.key, image.label, image.sha256)
    if label is None:
      return no_class(image.key, len(image.encoded))
    return image if label == image.label else dataclasses.replace(image, label=label)

  def is_copy(self, image: Image) -> bool:
    """Whether an image was corrected under another name alone."""
    corrections = self.load()
    return image.key not in corrections.named and bytes.fromhex(image.sha256) in corrections.labels

  def to_extra(self) -> dict[str, object]:
    """Returns the entry of a report's `extra`."""
    return {CORRECTED: dataclasses.asdict(self.tally)}


@functools.lru_cache(maxsize=2)
def _load(path: str, digest: str, read_lines: ReadLines) -> Corrections:
  corrections = Corrections.parse(read_lines(path), path)
  if corrections.digest != digest:
    raise InputError(f"{path} changed while the job ran: run the command again.")
  return corrections


def no_class(key: str, size_bytes: int) -> Quarantined:
  return Quarantined(key, size_bytes, Reason.NO_CLASS, "corrected: an image of no class")


def sum_tallies(
  corrections: Correcting, tallies: Iterable[Tally], quarantined: Iterable[Quarantined]
) -> tuple[dict[str, int], str]:
  """Returns the ledger's counts, and a CSV of unused corrections.

  Images left out for another reason, and so perhaps never read, have no line there.
  """
  relabelled, met, changed, left_out = 0, set[str](), set[str](), {entry.key: entry.reason for entry in quarantined}
  for tally in tallies:
    relabelled += tally.relabelled
    met.update(tally.met)
    changed.update(tally.changed)
  rows = []
  counts = {
    "relabelled": relabelled,
    "dropped": list(left_out.values()).count(Reason.NO_CLASS),
    "gone": 0,
    "changed": 0,
  }
  for _, (key, sha256), correction in read_rows(corrections.read_lines(corrections.path), corrections.path):
    if correction.decision in (RELABEL, DROP) and sha256[:_HASH_DIGITS] not in met and key not in left_out:
      reason = "changed" if key in changed else "gone"
      counts[reason] += 1
      rows.append([*map(escape_cell, (key, sha256, *correction[:3])), reason])
  return counts, csv_text([UNUSED_HEADER, *rows])
