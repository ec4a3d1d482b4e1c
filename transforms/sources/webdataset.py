"""WebDataset: tar files of images and labels, as img2dataset writes them.

A sample is `NAME.jpg` (or .jpeg, .jpe, .jfif, .png, .gif, .bmp, .webp) and `NAME.cls` (a class index or name) or
`NAME.txt` (a label); the `.cls` wins. NAME ends at the first dot after the last slash, as in the `webdataset` package;
an image whose NAME has nothing else, as of `2024.05.jpg`, is quarantined. Other members are ignored, and so are other
files (.parquet, _stats.json).

Class indices come first in the label list, sorted as numbers, so that label i is class i if all of 0..N-1 occur; names
follow, sorted. The driver reads all headers once for the labels; workers read them again, and images by offset.
"""

from __future__ import annotations

import heapq
import itertools
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

import apache_beam as beam

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.labels import is_label, merged, normalise
from beam_retrain.transforms.core.records.quarantine import MAX_FILE_BYTES, Quarantined, Reason
from beam_retrain.transforms.core.records.schema import TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.shards import (
  IMAGES_PER_SHARD,
  Input,
  Shard,
  pack,
  read_picked,
  reduce_packed,
  unpack,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.system.listing import EXTENSIONS
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.base import (
  Source,
  SourceOptions,
  check_classes,
  has_items,
  read_range,
  sample_hash,
)
from beam_retrain.transforms.sources.image_files import split_by_hash

_LABELS = ("cls", "txt")  # the first wins
_COMPRESSED = (".tar.gz", ".tgz")
_MAX_LABEL_BYTES = 1 << 12
_NAME = re.compile(
  rf"((?:.*/)?[^./][^./]*)\.({'|'.join((*EXTENSIONS, *_LABELS))})", re.DOTALL | re.IGNORECASE | re.ASCII
)
_DOTTED = re.compile(rf"((?:.*/)?[^./][^./]*)\.[^/]*\.(?:{'|'.join(EXTENSIONS)})", re.DOTALL | re.IGNORECASE | re.ASCII)
_BLOCK = 512


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


class TarImages(NamedTuple):
  """Some images of a tar file, in its order."""

  key: str
  path: str
  size_bytes: int
  modified_secs: float
  members: tuple[TarMember, ...]

  def __reduce__(self) -> Any:
    return reduce_packed(self)

  def count_images(self) -> int:
    return len(self.members)

  def names(self, split: str) -> Iterator[tuple[str, str | None]]:
    for member in self.members:
      yield f"{self.key}/{member.name}", member.label

  def read(self, split: str) -> Iterator[Image | Quarantined]:
    with files.open_to_read(self.path) as file:
      for member in self.members:
        key = f"{self.key}/{member.name}"
        if member.size_bytes > MAX_FILE_BYTES:
          yield Quarantined.too_large(key, member.size_bytes, split)
        else:
          yield Image(key, member.label, read_range(file, self.path, member.start, member.size_bytes))

  def read_where(self, split: str, is_wanted: Callable[[str], bool]) -> Iterator[Image | Quarantined]:
    return read_picked(self, split, is_wanted)

  def pick(self, numbers: Sequence[int]) -> Iterator[Input]:
    yield self._replace(members=tuple(self.members[number] for number in numbers))


Entry = TarMember | Quarantined


class WebDatasetSource(Source):
  """A WebDataset tar, or a folder of them."""

  name = "WebDataset tars"

  def __init__(self, path: str, options: SourceOptions = SourceOptions()):  # noqa: B008
    self.path = path
    self._tars = find_tars(path)
    self.has_splits = self._tars[0].split is not None
    for tar in self._tars:
      if tar.path.lower().endswith(_COMPRESSED):
        raise InputError(f"{tar.path} is compressed and cannot be read in parts: decompress it with gunzip.")
    self._texts: set[str] = set()  # of the labels
    entries = itertools.chain.from_iterable(index_tar(tar, self._texts) for tar in self._tars)
    self.labels = sorted({entry.label for entry in entries if isinstance(entry, TarMember)}, key=_label_order)
    check_classes(path, self.labels, options.min_classes)

  @classmethod
  def recognises(cls, path: str) -> bool:
    return bool(find_tars(path))

  def plan(self, splits: Sequence[str], percentages: SplitPercentages | None) -> beam.PTransform:
    for split in splits:
      if self.has_splits and not any(tar.split == split for tar in self._tars):
        raise InputError(f"{self.path} has no folder {split} with tars: put the tars of {split} images there.")
    return plan_tars(self._tars, splits, percentages)

  def list_shards(
    self, splits: Sequence[str], percentages: SplitPercentages | None, max_files: int | None = None
  ) -> Iterator[Shard]:
    tars = self._tars
    if max_files is not None:
      wanted = [tar for tar in tars if tar.split is None or tar.split in splits]
      tars = sorted(heapq.nsmallest(max_files, wanted, key=lambda tar: sample_hash(tar.key)))
    for tar in tars:
      for split, entries in index_by_split(tar, splits, percentages):
        for _, inputs in cut_into_inputs(tar, entries):
          yield Shard(split, 0, 1, inputs)

  def has_at_least(self, count: int) -> bool:
    return has_items(itertools.chain.from_iterable(map(index_tar, self._tars)), count)

  def notes(self) -> Iterator[str]:
    yield from merged(self._texts)


def _label_order(label: str) -> tuple[bool, int, str]:
  return (False, int(label), label) if label.isdecimal() else (True, 0, label)


def find_tars(path: str) -> list[Tar]:
  """Lists the tars of a data set, sorted; empty for another format.

  Raises InputError if there are some both inside and outside of `training` and `testing`.
  """
  if _is_tar(path) and (stat := files.stat(path)):
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
  named = ((os.path.basename(stat.path), stat) for stat in files.match_in(folder, "*.t*"))
  return [
    Tar(split, f"{split}/{name}" if split else name, *stat)
    for name, stat in named
    if _is_tar(name) and not name.startswith(".")
  ]


def _is_tar(path: str) -> bool:
  return path.lower().endswith((".tar", *_COMPRESSED))


def plan_tars(
  tars: Sequence[Tar],
  splits: Sequence[str],
  percentages: SplitPercentages | None,
  images_per_shard: int = IMAGES_PER_SHARD,
) -> beam.PTransform:
  """Returns PBegin -> PCollection[Shard], full ones of neighbours in the sorted tars."""
  return (
    "CreateTars" >> beam.Create(tars)
    | "SpreadTars" >> beam.Reshuffle()
    # Tar
    | "IndexTar" >> beam.FlatMap(_pack_index, tuple(splits), percentages)
    # (split, Tar, count, packed entries)
    | "CutTars" >> _CutTars(images_per_shard)
  )


class _CutTars(beam.PTransform):
  """PCollection[(split, Tar, count, packed entries)] -> PCollection[Shard]."""

  def __init__(self, images_per_shard: int):
    super().__init__()
    self._images_per_shard = images_per_shard

  def expand(self, indexed: beam.PCollection) -> beam.PCollection:
    starts = (
      indexed
      | "CountEntries" >> beam.MapTuple(lambda split, tar, count, _: (split, (tar.key, count)))
      | "GroupCounts" >> beam.GroupByKey()
      | "PlaceTars" >> beam.MapTuple(_place_tars)
    )  # (split, tar's key -> number of its first image)
    return (
      indexed
      | "CutTar" >> beam.FlatMap(_cut_tar, starts=beam.pvalue.AsDict(starts), size=self._images_per_shard)
      # ((split, index, of), (number of the first image, inputs))
      | "GroupShards" >> beam.GroupByKey()
      | "MakeShard" >> beam.MapTuple(_make_shard)
    )  # Shard


_END = ""  # the key of a split's total; no tar has it


def _place_tars(split: str, counts: Iterable[tuple[str, int]]) -> tuple[str, dict[str, int]]:
  starts, total = {}, 0
  for key, count in sorted(counts):
    starts[key] = total
    total += count
  return split, {**starts, _END: total}


def _pack_index(
  tar: Tar, splits: Sequence[str], percentages: SplitPercentages | None
) -> Iterator[tuple[str, Tar, int, bytes]]:
  for split, entries in index_by_split(tar, splits, percentages):
    yield split, tar, len(entries), pack(entries)


def _cut_tar(
  indexed: tuple[str, Tar, int, bytes], starts: Mapping[str, Mapping[str, int]], size: int
) -> Iterator[tuple[tuple[str, int, int], tuple[int, tuple[Input, ...]]]]:
  split, tar, _, packed = indexed
  of = -(-starts[split][_END] // size)
  for first, inputs in cut_into_inputs(tar, unpack(packed), starts[split][tar.key], size):
    yield (split, first // size, of), (first, inputs)


def _make_shard(name: tuple[str, int, int], parts: Iterable[tuple[int, tuple[Input, ...]]]) -> Shard:
  ordered = sorted(parts, key=lambda part: part[0])
  return Shard(*name, inputs=tuple(itertools.chain.from_iterable(inputs for _, inputs in ordered)))


def cut_into_inputs(
  tar: Tar, entries: Sequence[Entry], start: int = 0, size: int = IMAGES_PER_SHARD
) -> Iterator[tuple[int, tuple[Input, ...]]]:
  """Yields (number of the first image, inputs), cut at multiples of `size`.

  `entries` are of one split, in which the first one has the number `start`.
  """
  first = start
  while first < start + len(entries):
    end = (first // size + 1) * size
    yield first, tuple(_to_inputs(tar, entries[first - start : end - start]))
    first = end


def _to_inputs(tar: Tar, entries: Iterable[Entry]) -> Iterator[Input]:
  for are_images, run in itertools.groupby(entries, lambda entry: isinstance(entry, TarMember)):
    if are_images:
      yield TarImages(*tar[1:], cast(tuple[TarMember, ...], tuple(run)))
    else:
      yield from cast(Iterator[Quarantined], run)


def index_by_split(
  tar: Tar, splits: Sequence[str], percentages: SplitPercentages | None
) -> Iterator[tuple[str, list[Entry]]]:
  """Yields (split, its images in a tar) for splits with images."""
  by_split: dict[str, list[Entry]] = {}
  for entry in index_tar(tar) if tar.split is None or tar.split in splits else ():
    key = entry.key if isinstance(entry, Quarantined) else f"{tar.key}/{entry.name}"
    by_split.setdefault(tar.split or split_by_hash(key, percentages), []).append(entry)
  yield from ((split, by_split[split]) for split in splits if split in by_split)


def index_tar(tar: Tar, texts: set[str] | None = None) -> Iterator[Entry]:
  """Yields the images of a tar, then its fault, if any.

  Adds to `texts` what the labels are made of. Raises InputError if the tar cannot be read, or repeats a name.
  """
  samples: dict[str, dict[str, TarMember]] = {}  # NAME -> extension -> member
  dotted: list[tuple[str, Quarantined]] = []
  try:
    with files.open_to_read(tar.path) as file, tarfile.open(fileobj=file, mode="r:") as members:
      fault = _scan(tar, file, members, samples, dotted)
  except (OSError, tarfile.TarError) as error:
    raise InputError(f"{tar.path} cannot be read as a tar ({error}): replace or remove it.") from error
  for name, sample in samples.items():
    if texts is not None:
      texts.update(member.label for member in sample.values() if member.label)
    yield from _entries_of(tar, os.path.basename(name), sample)
  yield from (fault for name, fault in dotted if name not in samples)  # otherwise another field of that sample
  if fault:
    detail = f"the tar is {fault}: what followed is lost"
    yield Quarantined(tar.key, tar.size_bytes, Reason.TRUNCATED, detail, tar.split or "")


def _scan(
  tar: Tar,
  file: BinaryIO,
  members: tarfile.TarFile,
  samples: dict[str, dict[str, TarMember]],
  dotted: list[tuple[str, Quarantined]],
) -> str:
  """Fills `samples` and `dotted`; returns the fault of the tar."""
  try:
    while member := members.next():
      members.members = []  # type: ignore[attr-defined]  # frees memory
      # Names that are not UTF-8 cannot be written to a record or a CSV.
      name = member.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
      if not member.isreg() or not (matched := _NAME.fullmatch(member.name)):
        if member.isreg() and (matched := _DOTTED.fullmatch(member.name)):
          detail = "its name has a dot before its ending, where names of WebDataset end: rename it and its label"
          image = Quarantined(f"{tar.key}/{name}", member.size, Reason.BAD_LABEL, detail, tar.split or "")
          dotted.append((matched[1], image))
        continue
      sample, extension = samples.setdefault(matched[1], {}), matched[2].lower()
      if extension in sample:
        raise InputError(f"{tar.path} contains {member.name} twice: keys must differ; write it again.")
      label = ""
      if extension in _LABELS and member.size <= _MAX_LABEL_BYTES:
        file.seek(member.offset_data)
        label = _decode_label(file.read(member.size), extension)
      sample[extension] = TarMember(name, label, member.offset_data, member.size)
    file.seek(members.offset)
    return "" if file.read(_BLOCK) == bytes(_BLOCK) else f"damaged or cut off at byte {members.offset}"
  except tarfile.ReadError as error:
    return f"cut off ({error})"


def _decode_label(data: bytes, extension: str) -> str:
  """Returns the label; an empty string if unusable."""
  try:
    text = data.decode().strip()
  except UnicodeDecodeError:
    return ""
  if not is_label(text):
    return ""
  return str(int(text)) if extension == "cls" and text.isdecimal() else text


def _entries_of(tar: Tar, name: str, sample: Mapping[str, TarMember]) -> Iterator[Entry]:
  images = [member for extension, member in sample.items() if extension in EXTENSIONS]
  label = next((sample[extension] for extension in _LABELS if extension in sample), None)
  for image in images:
    reason = Reason.BAD_LABEL
    if image.start + image.size_bytes > tar.size_bytes:
      reason, detail = Reason.TRUNCATED, "the tar is cut off inside this image"
    elif label is None:
      detail = f"the tar has no {name}.cls or .txt beside it"
    elif label.label:
      yield image._replace(label=normalise(label.label))
      continue
    else:
      detail = f"{os.path.basename(label.name)} is empty, or not one line of text: it cannot be a label"
    yield Quarantined(f"{tar.key}/{image.name}", image.size_bytes, reason, detail, tar.split or "")
  if label and not images:
    detail = f"a label without an image: the tar has no {name}.jpg, .png, .gif, .bmp or .webp"
    yield Quarantined(f"{tar.key}/{label.name}", 0, Reason.NOT_AN_IMAGE, detail, tar.split or "")
