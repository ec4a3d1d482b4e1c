"""Finds stored bottlenecks of earlier runs, and each image's record in them.

A store is a finished folder with `records/*.tfrecord` and an `info.json` that names trunk and preprocessing: the output
of `bottlenecks`, or what other commands keep in `bottlenecks/<first 12 digits of the trunk's fingerprint>`. It is only
read, and only a cache: damaged records are computed anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.records.schema import INFO_FILE, RECORDS_FOLDER, digest_of_record
from beam_retrain.transforms.core.records.tfrecord import DamagedError, locate_records
from beam_retrain.transforms.core.run.run_info import RunInfo, find_info, is_completed
from beam_retrain.transforms.core.runtimes.trunk_info import NO_TRUNK, TrunkInfo
from beam_retrain.transforms.io import files

STORES_FOLDER = "bottlenecks"
STAGES = ("bottlenecks", "store")
"""Values of `stage` in a store's `info.json`: a command of its own, or a part of another."""


def store_folder(output: str, fingerprint: str) -> str:
  """Returns where a command that is not `bottlenecks` keeps the bottlenecks of a trunk."""
  return files.join(output, STORES_FOLDER, fingerprint[:12])


def find_stores(
  folders: Iterable[str], fingerprint: str, preprocessing: str, may_be_imported: bool = False
) -> list[str]:
  """Returns the stores in some folders, in that order, each once.

  Args:
    folders: stores, or folders with stores in them.
    fingerprint: of today's trunk.
    preprocessing: `PREPROCESSING_VERSION` of today.
    may_be_imported: whether bottlenecks may also be such as `retrain.py` computed (`--bottleneck_dir`).

  Raises:
    InputError: one of them has no finished store with records of this trunk and this preprocessing.
  """
  stores = list(dict.fromkeys(_find_store(folder, fingerprint, preprocessing) for folder in folders))
  for path in stores:
    info = _find_store_info(path)
    if not may_be_imported and info and info.settings.get("bottleneck_dir"):
      raise InputError(
        f"the bottlenecks in {path} are partly retrain.py's own, imported with --bottleneck_dir: give that flag here"
        " too, or leave out --reuse."
      )
  return stores


def trunks_in(folder: str) -> list[TrunkInfo]:
  """Returns the trunks of the stores in a folder that a user gave."""
  return [info.trunk for info in _stores_in(folder).values()]


def _stores_in(folder: str) -> dict[str, RunInfo]:
  """Returns path -> contents of `info.json`, of a store, or of a folder with stores in it."""
  within = files.match_in(folder, f"{STORES_FOLDER}/*/{INFO_FILE}")
  candidates = [folder, *(stat.path.removesuffix(f"/{INFO_FILE}") for stat in within)]
  return {path: info for path in candidates if (info := _find_store_info(path))}


def _find_store(folder: str, fingerprint: str, preprocessing: str) -> str:
  stores, leave_out = _stores_in(folder), f"leave out {flag('reuse')} {folder}"
  if not stores:
    raise InputError(
      f"{flag('reuse')} {folder} holds no stored bottlenecks: give the output of `beam-retrain bottlenecks`, or an"
      f" evaluation that has a folder {STORES_FOLDER}/."
    )
  path = next((path for path, info in stores.items() if info.trunk.fingerprint == fingerprint), "")
  if not path:
    infos = [info.trunk for info in stores.values()]
    trunks = "; ".join(map(str, infos))
    reasons = [info.variant.unsupported_reason() for info in infos]
    if all(reasons):
      raise InputError(
        f"the bottlenecks in {folder} are of a trunk ({trunks}) that cannot be had here ({reasons[0]}), and today's is"
        f" another one ({fingerprint[:12]}): {leave_out}, and all are computed anew."
      )
    raise InputError(
      f"the bottlenecks in {folder} are of another trunk ({trunks}) than today's ({fingerprint[:12]}): {leave_out}, or"
      f" use the trunk that they were made with, in the same {flag('precision')} and {flag('runtime')}."
    )
  found = stores[path].settings["preprocessing"]
  if found != preprocessing:
    raise InputError(
      f"the bottlenecks in {path} were made with another preprocessing ({found!r}) than today's ({preprocessing!r}):"
      f" {leave_out}."
    )
  if not is_completed(path, files):
    raise InputError(f"{path} is not finished: finish the run that wrote it, or {leave_out}.")
  if not record_files(path):
    raise InputError(f"{path} has no {RECORDS_FOLDER}: {leave_out}, or make them again.")
  return path


def _find_store_info(folder: str) -> RunInfo | None:
  """Returns a store's `info.json`; None where the folder is none."""
  info = find_info(folder, files)
  return info if info and info.stage in STAGES and info.trunk != NO_TRUNK else None


def record_files(store: str) -> list[str]:
  return [stat.path for stat in files.match_in(files.join(store, RECORDS_FOLDER), "*.tfrecord")]


def locate_bottlenecks(path: str) -> Iterator[tuple[bytes, int]]:
  """Yields (SHA-256 of the image, 32 bytes; byte at which its record starts) for each record of a file.

  Every byte is read and checked.

  Raises:
    DamagedError: the file is damaged, or holds something else.
  """
  with files.open_to_read(path) as file:
    for position, record in locate_records(file, path):
      try:
        yield digest_of_record(record), position
      except KeyError as error:
        raise DamagedError(f"{path} holds a record without {error}: write it again.") from error


def locate_sound(path: str) -> Iterator[tuple[bytes, int]]:
  """Does the same up to the first damage, which it reports on standard error."""
  try:
    yield from locate_bottlenecks(path)
  except (DamagedError, OSError) as error:
    cause = error.cause if isinstance(error, DamagedError) else f"{path} cannot be read: {error.strerror or error}"
    print(f"beam-retrain: {cause}: the bottlenecks that it has from there on are computed anew.", file=sys.stderr)
