"""Beam's other file systems, such as `hdfs://`. Never tested."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import BinaryIO, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from beam_retrain.transforms.io.object_stores.base import FileStat


def stat(path: str) -> FileStat | None:
  try:
    entry = FileSystems.get_filesystem(path).metadata(path)
  except BeamIOError:
    return None
  return FileStat(entry.path, entry.size_in_bytes, entry.last_updated_in_seconds or 0.0)


def open_to_read(path: str) -> BinaryIO:
  return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))


def list_prefix(prefix: str) -> Iterator[FileStat]:
  for entry in FileSystems.match([f"{prefix}**"])[0].metadata_list:
    yield FileStat(entry.path, entry.size_in_bytes, entry.last_updated_in_seconds or 0.0)


def children(folder: str) -> set[str]:
  prefix = f"{folder}/"
  inside = (status.path.removeprefix(prefix).partition("/") for status in list_prefix(prefix))
  return {f"{name}{slash}" for name, slash, _ in inside}


def upload(path: str, file: BinaryIO) -> None:
  with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as target:
    shutil.copyfileobj(file, target)


def delete(paths: list[str]) -> None:
  """Deletes objects; raises ValueError if a name looks like a pattern."""
  if marked := [name for name in paths if set("*?[") & set(name)]:
    raise ValueError(f"Beam would read {marked[0]} as a pattern")
  FileSystems.delete(paths)
