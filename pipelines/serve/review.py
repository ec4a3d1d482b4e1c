"""What is to be reviewed of an evaluation, and what was decided."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from beam_retrain.pipelines.reevaluate.history import STAGE as NIGHT
from beam_retrain.pipelines.serve.corrections import Corrections
from beam_retrain.pipelines.serve.images import Images, InputImages
from beam_retrain.pipelines.serve.neighbours import Neighbours
from beam_retrain.transforms.core.corrections import DROP, KEEP, RELABEL, UNSURE, Correction, ImageId
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import normalise
from beam_retrain.transforms.core.metrics.predictions import Row, read_predictions
from beam_retrain.transforms.core.printing import printable
from beam_retrain.transforms.core.records.csv_format import unescape_cell
from beam_retrain.transforms.core.records.schema import LEAKS_FILE
from beam_retrain.transforms.core.run.output_folder import find_info, find_output, read_info
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.evaluation.evaluate import PREDICTIONS_FILE, SUSPICIOUS_FILE
from beam_retrain.transforms.io import files

AnyRow = TypeVar("AnyRow")

MISTAKES, SUSPICIOUS, LEAKS, NEAR = "mistakes", "suspicious", "leaks", "near-duplicates"
MAX_OF_A_KIND = 2_000
MAX_PAIRS, MIN_COSINE = 200, 0.995
MAX_NOTE = 500  # characters


@dataclasses.dataclass
class Item:
  """An image to review.

  Beside it stand the images of the numbers in `like`: copies under another name, or a near training image.
  """

  key: str
  sha256: str
  label: str
  image: int
  predicted: str = ""
  suggested: str = ""  # the label that heads trained on other images suggest; empty without `--label_errors`
  confidence: float | None = None  # in percent
  kinds: list[str] = dataclasses.field(default_factory=list)  # mistakes, suspicious, leaks, near-duplicates
  ranks: dict[str, int] = dataclasses.field(default_factory=dict)  # kind -> place, 0 for what to look at first
  like: list[tuple[int, str]] = dataclasses.field(default_factory=list)

  @property
  def id(self) -> ImageId:
    return self.key, self.sha256


def open_evaluation(path: str) -> tuple[str, RunInfo]:
  """Opens a finished evaluation or night: its folder and info."""
  folder = find_output(files.absolute(path), "evaluate", files)
  found = find_info(folder, files)
  return folder, read_info(folder, NIGHT if found and found.stage == NIGHT else "evaluate", files)


class Review:
  """The images to review, by index, and their corrections."""

  def __init__(self, folder: str, info: RunInfo, corrections: Corrections, images: Images, labels: Sequence[str]):
    self.labels, self.corrections = list(labels), corrections
    self.left_out: dict[str, int] = {}  # kind -> images beyond `MAX_OF_A_KIND`
    self.items: list[Item] = []
    self._by_id: dict[ImageId, Item] = {}
    self._found: Counter[str] = Counter()
    self._folder, self._images = folder, images
    rows = {MISTAKES: [row for row in _rows(folder, PREDICTIONS_FILE) if not row.right]}
    rows[MISTAKES].sort(key=lambda row: (-float(row.confidence), row.key))
    rows[SUSPICIOUS] = list(_rows(folder, SUSPICIOUS_FILE))
    self._source = InputImages(info, ())
    for kind, found in rows.items():
      for row in self._some(kind, found):
        self._add(kind, row)
    for id, label in _suggestions(folder):
      if item := self._by_id.get(id):
        item.suggested = label
    copies, near = _leaks(folder)
    for leak in self._some(LEAKS, copies):
      self._add(LEAKS, leak.row)
    self._join_copies()
    self._add_similar(self._some(NEAR, near))
    corrections.read()  # raises if it is damaged

  def _add_similar(self, found: Sequence[_Leak]) -> None:
    """Adds the near-duplicates that the evaluation found."""
    digests = dict.fromkeys(leak.like for leak in found)
    if digests:
      digests |= {row.key: row.sha256 for row in _rows(self._folder, PREDICTIONS_FILE) if row.key in digests}
    for leak in found:
      if sha256 := digests[leak.like]:
        self._source.keys.add(key := unescape_cell(leak.like))
        like = self._images.number(self._source, key, sha256), f"near-duplicate, cosine {leak.cosine}"
        self._add(NEAR, leak.row).like.append(like)

  def add_near(self, neighbours: Neighbours, stored: InputImages) -> None:
    """Adds evaluated images that look most like a training image.

    Does nothing where the evaluation has looked for near-duplicates.
    """
    if any(NEAR in item.kinds for item in self.items):
      return
    evaluated = {row.sha256: row for row in _rows(self._folder, PREDICTIONS_FILE)}
    for image, near in neighbours.closest_pairs(MAX_PAIRS):
      if near.cosine >= MIN_COSINE and (row := evaluated.get(image.sha256)):
        item = self._add(NEAR, row)
        number = self._images.number(stored, near.image.key, near.image.sha256)
        item.like.append((number, f"training image, {near.image.label}, cosine {near.cosine:.4f}"))

  def _some(self, kind: str, found: Sequence[AnyRow]) -> Sequence[AnyRow]:
    if len(found) > MAX_OF_A_KIND:
      self.left_out[kind] = len(found) - MAX_OF_A_KIND
    return found[:MAX_OF_A_KIND]

  def _add(self, kind: str, row: Row) -> Item:
    key, label = unescape_cell(row.key), unescape_cell(row.actual)
    item = self._by_id.get((key, row.sha256))
    if not item:
      item = Item(key, row.sha256, label, self._images.number(self._source, key, row.sha256))
      self._by_id[item.id] = item
      self._source.keys.add(key)
      self.items.append(item)
    if row.predicted:
      item.predicted, item.confidence = unescape_cell(row.predicted), float(row.confidence)
    if kind not in item.kinds:
      item.kinds.append(kind)
      item.ranks[kind] = self._found[kind]
      self._found[kind] += 1
    return item

  def _join_copies(self) -> None:
    for copies in self._copies().values():
      for item in copies:
        item.like += [(other.image, f"the same image, {other.label}") for other in copies if other is not item]

  def _copies(self) -> dict[str, list[Item]]:
    copies: dict[str, list[Item]] = {}
    for item in self.items:
      copies.setdefault(item.sha256, []).append(item)
    return copies

  def decisions(self) -> dict[int, Correction]:
    decided = self.corrections.read()
    return {index: decided[item.id] for index, item in enumerate(self.items) if item.id in decided}

  def decide(
    self, index: int, sha256: str, decision: str | None, label: str, note: str, seen: Correction | None
  ) -> None:
    """Writes a decision on all copies of an image; None removes it.

    Raises ConflictError if the image has another decision than the page has `seen`, and InputError if there is no such
    item, decision or label.
    """
    if not 0 <= index < len(self.items) or self.items[index].sha256 != sha256:
      raise InputError(f"item {index} is another by now: load the page again.")
    item, note = self.items[index], printable(note)[:MAX_NOTE]
    if decision == RELABEL:
      label = normalise(label)
      if label not in self.labels:
        raise InputError(f"{label!r} is none of the {len(self.labels)} labels: choose one of them.")
    elif decision == KEEP:
      label = item.label
    elif decision in (DROP, UNSURE, None):
      label = ""
    else:
      raise InputError(f"{decision!r} is no decision: give {KEEP}, {RELABEL}, {DROP} or {UNSURE}.")
    changes: dict[ImageId, Correction | None] = {}
    for copy in self._copies()[item.sha256]:  # the same bytes have one label, whatever they are called
      what = (KEEP if label == copy.label else RELABEL) if label else decision
      changes[copy.id] = Correction(copy.label, label, what, note) if what else None
    self.corrections.change({item.id: seen}, changes)


def _rows(folder: str, name: str) -> Iterator[Row]:
  path = files.join(folder, name)
  if files.exists(path):
    yield from read_predictions(files.read_lines(path), path)


def _suggestions(folder: str) -> Iterator[tuple[ImageId, str]]:
  """Yields what heads trained on other images suggest for an image."""
  path = files.join(folder, SUSPICIOUS_FILE)
  for row in csv.DictReader(files.read_lines(path)) if files.exists(path) else ():
    if label := row.get("suggested_digit"):
      yield (unescape_cell(row["file_name"]), row["sha256"]), unescape_cell(label)


class _Leak(NamedTuple):
  """An image in `leaks.csv`; the texts are of near-duplicates alone."""

  row: Row
  like: str
  cosine: str


def _leaks(folder: str) -> tuple[list[_Leak], list[_Leak]]:
  """Returns copies and near-duplicates, once each."""
  path = files.join(folder, LEAKS_FILE)
  rows = csv.DictReader(files.read_lines(path)) if files.exists(path) else ()
  leaks = dict.fromkeys(
    _Leak(Row(row["file_name"], row["label"], "", "", row["sha256"]), row.get("like", ""), row.get("cosine", ""))
    for row in rows
  )
  return [leak for leak in leaks if not leak.like], [leak for leak in leaks if leak.like]
