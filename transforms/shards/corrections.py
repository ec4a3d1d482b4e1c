"""Opens corrections and hands them to the shards of a job."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import NamedTuple

import apache_beam as beam

from beam_retrain.transforms.core.corrections import CORRECTIONS_FILE, UNUSED_FILE, Correcting, Corrections
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.records.schema import ALL, TESTING, TRAINING, Image
from beam_retrain.transforms.core.run.stats import Stats
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import Source, check_classes


class Opened(NamedTuple):
  """The file that a user gave, checked."""

  path: str
  corrections: Corrections
  away: tuple[str, ...] = ()  # labels of the images' source of which no image is left

  def settings(self) -> dict[str, str]:
    return {"corrections": self.corrections.digest}

  def given(self) -> Correcting:
    """Returns what corrects with the user's own file."""
    return Correcting(self.path, self.corrections.digest, files.read_lines)

  def in_output(self, output: str) -> Correcting:
    """Returns what corrects with the copy in a job's output."""
    return dataclasses.replace(self.given(), path=files.join(output, CORRECTIONS_FILE))

  def copy_to(self, output: str) -> None:
    """Copies the file, which people may change while the job runs."""
    files.write_bytes(files.join(output, CORRECTIONS_FILE), files.read_bytes(self.path))
    self.in_output(output).load()

  def report(self, stats: Stats, output: str) -> None:
    """Prints what the corrections of all images did."""
    counts = stats.corrections or {}
    relabelled, dropped = counts["relabelled"], counts["dropped"]
    say(f"labels corrected by {files.shown(self.path)}: {relabelled:,}; images left out: {dropped:,}")
    self.tell_unused(stats, output)

  def tell_unused(self, stats: Stats, output: str, *, of_all: bool = True) -> None:
    """Prints how many met no image; `of_all`: of all images."""
    counts, path = stats.corrections or {}, files.shown(files.join(output, UNUSED_FILE))
    for reason, what in (("gone", "not there any more"), ("changed", "changed since")):
      if (count := counts[reason]) and (of_all or reason != "gone"):
        of = "1 correction is of an image" if count == 1 else f"{count:,} corrections are of images"
        say(f"{of} {what}: see {path}", file=sys.stderr)


def open_corrections(
  path: str | None, source: Source, known: Sequence[str] = (), min_classes: int = 1
) -> Opened | None:
  """Reads the file that a user gave, if any.

  Labels that it leaves without an image are taken out of `source.labels`. `known`: labels besides those of the source,
  of a model. Raises InputError if it cannot be used, or gives a label that does not exist.
  """
  if path is None:
    return None
  corrections = Corrections.parse(files.read_lines(path), path)
  corrections.check_labels({*source.labels, *known}, path, source.path)
  away = tuple(_emptied(source, corrections))
  if away:
    source.labels = [label for label in source.labels if label not in away]
    check_classes(source.path, source.labels, min_classes)
  return Opened(path, corrections, away)


def _emptied(source: Source, corrections: Corrections) -> list[str]:
  """Returns the labels of a source of which no image is left."""
  emptied = corrections.labels_was - corrections.lines.keys()
  keys: dict[str, list[str]] = {label: [] for label in source.labels if label in emptied}
  if not keys:
    return []
  for shard in source.list_shards((TRAINING, TESTING) if source.has_splits else (ALL,), None):
    for key, label in shard.names():
      if label in keys:
        if key in corrections.named:
          keys[label].append(key)
        else:
          del keys[label]  # one image stays
    if not keys:
      return []
  wanted = {key for of_label in keys.values() for key in of_label}
  images = (image for image in source.read_keys(wanted) if isinstance(image, Image))
  corrected = {image.key for image in images if bytes.fromhex(image.sha256) in corrections.labels}
  return [label for label, of_label in keys.items() if of_label and corrected.issuperset(of_label)]


def correct(shards: beam.PCollection, corrections: Correcting | None) -> beam.PCollection:
  """Hands corrections to shards: PCollection[Shard] -> PCollection[Shard]."""
  if corrections is None:
    return shards
  return shards | "Correct" >> beam.Map(lambda shard: shard._replace(corrections=corrections))
