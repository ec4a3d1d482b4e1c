"""Imports `retrain.py`'s text bottlenecks into a store for reuse.

There is one file per image, `<class folder>/<image>_<module>.txt` (the earliest versions: `<image>.txt`), with the
vector as decimal numbers separated by commas. `<module>` is the handle of the TF Hub module, made fit for a file name.

The numbers differ from ours: TensorFlow 1 resized images off by a fraction of a pixel, and another version of a module
has other weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.images.headers import ImageInfo, find_damage, probe_image
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import STATS_FILE, Bottleneck, Image, encode_bottleneck
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.core.records.tfrecord import frame
from beam_retrain.transforms.io import files
from beam_retrain.transforms.shards.work import ShardTask, Written

IMPORTED, DAMAGED = "imported", "damaged"

_NAME = re.compile(r".*\.(?:jpe?g|png)(?:_(?P<module>.+))?\.txt", re.IGNORECASE | re.DOTALL)
_VERSION = re.compile(r"~\d+$")
_MAX_FILE_BYTES = 1 << 24
_SAMPLES_PER_FOLDER, _SAMPLES = 4, 64


@dataclasses.dataclass(frozen=True)
class Texts:
  """The text bottlenecks of one module in a folder."""

  folder: str  # `retrain.py`'s `--bottleneck_dir`
  module: str  # as in file names; empty if they have none
  is_of_trunk: bool  # whether the module is named like the trunk
  count: int
  fingerprint: str  # of names, sizes and times, 64 hex digits; changed files make another request
  first: tuple[str, ...]  # some of their paths

  def path_of(self, key: str) -> str:
    return files.join(self.folder, text_name(key, self.module))

  def to_settings(self) -> dict[str, str | int]:
    """Returns what determines the records' bytes."""
    return {"path": self.folder, "module": self.module, "count": self.count, "fingerprint": self.fingerprint}


@dataclasses.dataclass
class _Tally:
  """Files of one module; `total` sums hashes, independent of order."""

  count: int = 0
  total: int = 0
  first: list[str] = dataclasses.field(default_factory=list)


def find_texts(folder: str, prefixes: Iterable[str], handles: Sequence[str]) -> Texts:
  """Searches the class folders `prefixes` of a `--bottleneck_dir`.

  `handles` are names of the trunk, the user's first. Raises InputError if there are no text bottlenecks, or those of
  several other modules.
  """
  tallies: dict[str, _Tally] = {}
  for prefix in sorted(prefixes):
    sampled: Counter[str] = Counter()
    for path, size_bytes, modified_secs in files.match_in(files.join(folder, prefix), "*.txt"):
      name = files.split(path)[1]
      if (module := module_of_file(name)) is None:
        continue
      tally = tallies.setdefault(module, _Tally())
      tally.count += 1
      described = json.dumps([f"{prefix}/{name}", size_bytes, modified_secs]).encode()
      tally.total += int.from_bytes(hashlib.sha256(described).digest(), "big")
      sampled[module] += 1
      if sampled[module] <= _SAMPLES_PER_FOLDER and len(tally.first) < _SAMPLES:
        tally.first.append(path)
  if not tallies:
    raise InputError(
      f"--bottleneck_dir {folder} has no text bottlenecks (<class folder>/<image>_<module>.txt) of the classes in"
      f" {flag('input')}: give the folder that retrain.py wrote, or leave --bottleneck_dir out."
    )
  module = choose_module(tallies, handles, folder)
  tally = tallies[module]
  digest = f"{tally.total % (1 << 256):064x}"
  return Texts(folder, module, is_module_of(module, handles), tally.count, digest, tuple(tally.first))


def module_name(handle: str) -> str:
  """Returns a module's handle as in file names: `https~tfhub.dev~google~x~1`."""
  return re.sub(r"://|[/:\\]", "~", handle)


def module_of_file(name: str) -> str | None:
  """Returns a text bottleneck's module, maybe empty; None for other files."""
  match = _NAME.fullmatch(name)
  return (match["module"] or "") if match else None


def text_name(image: str, module: str) -> str:
  return f"{image}_{module}.txt" if module else f"{image}.txt"


def choose_module(modules: Collection[str], handles: Sequence[str], folder: str) -> str:
  """Returns which of a folder's modules is the current trunk's.

  That is the one named like the trunk; or the only other version of the same TF Hub module; or the only one in the
  folder, since a trunk may have been moved. Raises InputError if there are several others.
  """
  names = [module_name(handle) for handle in handles]
  if exact := [name for name in names if name in modules]:
    return exact[0]
  if len(modules) == 1:
    return next(iter(modules))
  if len(versions := [module for module in modules if is_module_of(module, handles)]) == 1:
    return versions[0]
  listed = ", ".join(repr(module) if module else "files without a module" for module in sorted(versions or modules))
  raise InputError(
    f"{folder} has text bottlenecks of several modules ({listed}), none of them named like the trunk {handles[0]!r}:"
    " move those of other trunks elsewhere."
  )


def is_module_of(module: str, handles: Sequence[str]) -> bool:
  """Returns whether a module is named like the trunk, in any version."""
  plain = _VERSION.sub("", module)
  return any(plain == _VERSION.sub("", module_name(handle)) for handle in handles)


def check_lengths(texts: Texts, dimensions: int) -> None:
  """Raises InputError unless a sample is as long as the trunk's."""
  vectors = ((path, vector) for path in texts.first if (vector := read_vector(path)) is not None)
  other = None
  for path, vector in vectors:
    if len(vector) == dimensions:
      return
    other = other or wrong_length(path, len(vector), dimensions)
  if other:
    raise other


def wrong_length(path: str, length: int, dimensions: int) -> InputError:
  return InputError(
    f"{path} has {length:,} numbers, but the trunk gives {dimensions:,}: it is of another trunk. Give the trunk that"
    " the text bottlenecks were made with, or leave --bottleneck_dir out; if only this file is wrong, delete it."
  )


def read_vector(path: str) -> np.ndarray | None:
  """Returns float32 [n]; None if the file is damaged or unreadable."""
  try:
    stat = files.stat(path)
    return parse_vector(files.read_bytes(path)) if stat and stat.size_bytes <= _MAX_FILE_BYTES else None
  except OSError:
    return None


def parse_vector(text: bytes) -> np.ndarray | None:
  """Returns the numbers, float32 [n]; None unless all are finite."""
  try:
    numbers = np.array([float(part) for part in text.decode("ascii").split(",")])
  except ValueError:  # UnicodeDecodeError is one
    return None
  with np.errstate(over="ignore"):
    vector = numbers.astype(np.float32)
  return vector if np.isfinite(vector).all() else None


class ImportTexts(ShardTask):
  """Writes bottleneck records of images that have a sound text file.

  Leaves out the others, and images that cannot be decoded: the trunk's run reports those. Raises InputError for a file
  of more than `dimensions` numbers; one with fewer was cut off.
  """

  def __init__(self, texts: Texts, labels: Sequence[str], dimensions: int, max_pixels: int):
    self._texts = texts
    self._labels = list(labels)
    self._dimensions = dimensions
    self._max_pixels = max_pixels
    self._damaged = 0

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    self._damaged = 0
    for entry in shard.inputs:
      ((key, label),) = entry.names(shard.split)
      # Images without a label are already quarantined.
      if label is not None and (vector := self._find(key)) is not None:
        for image in shard._replace(inputs=(entry,)).read_images(self._labels):
          if isinstance(image, Image) and (record := self._encode(image, vector)):
            yield Written(image.label, frame(record))

  def extra(self) -> Mapping[str, int]:
    return {DAMAGED: self._damaged}

  def check(self, shard: Shard) -> None:
    """Reads the shard's text files, but no images; raises as above."""
    for key, label in shard.names():
      if label is not None:
        self._find(key)

  def _find(self, key: str) -> np.ndarray | None:
    path = self._texts.path_of(key)
    if not files.exists(path):
      return None
    vector = read_vector(path)
    if vector is not None and len(vector) > self._dimensions:
      raise wrong_length(path, len(vector), self._dimensions)
    if vector is None or len(vector) < self._dimensions:
      self._damaged += 1
      return None
    return vector

  def _encode(self, image: Image, vector: np.ndarray) -> bytes | None:
    info = probe_image(image.encoded, self._max_pixels)
    if not isinstance(info, ImageInfo) or find_damage(info.cut or image.encoded):
      return None
    return encode_bottleneck(
      Bottleneck(
        key=image.key,
        label=image.label,
        class_index=self._labels.index(image.label),
        vector=vector,
        format=info.format,
        height=info.height,
        width=info.width,
        sha256=image.sha256,
      )
    )


def write_counts(reports: Sequence[ShardReport], store: str) -> None:
  """Writes the store's `stats.json`: text files imported and damaged."""
  counts = {
    IMPORTED: sum(report.outputs for report in reports),
    DAMAGED: sum(report.extra[DAMAGED] for report in reports),
  }
  files.write_text(files.join(store, STATS_FILE), json.dumps(counts, indent=2) + "\n")
