"""Finds stored bottlenecks of earlier runs.

A store is a finished folder with `records/*.tfrecord` and an `info.json` with trunk and preprocessing: the output of
`bottlenecks`, or a folder `bottlenecks/<first 12 digits of the trunk's fingerprint>` of another command. Damaged
records are computed again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

from beam_retrain.transforms.core.errors import InputError, flag
from beam_retrain.transforms.core.printing import print
from beam_retrain.transforms.core.records.schema import (
  INFO_FILE,
  PREPROCESSING_VERSION,
  RECORDS_FOLDER,
  STORES_FOLDER,
  TESTING,
  TRAINING,
  VALIDATION,
  Bottleneck,
  decode_bottleneck,
  digest_of_record,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import DamagedError, locate_records, read_records
from beam_retrain.transforms.core.run.output_folder import find_faults, find_info, is_completed, reopen_folder
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.core.runtimes.trunk_info import NO_TRUNK, TrunkInfo
from beam_retrain.transforms.io import files

STAGES = ("bottlenecks", "store")
"""Values of `stage` in a store's `info.json`: a command, or part of another."""


PREVIOUS_FOLDER = ".previous"
"""In an output of `bottlenecks`, while it is written: its records of before, with other labels."""


def find_previous(output: str, earlier: RunInfo | None, fingerprint: str, corrections: str | None) -> str | None:
  """Returns where an output keeps its bottlenecks while labels change.

  None if it is remote, has none of this trunk, or has the same corrections. `earlier` is its `info.json`.
  """
  if not earlier or not files.is_local(output) or earlier.trunk.fingerprint != fingerprint:
    return None
  if earlier.settings.get("preprocessing") != PREPROCESSING_VERSION or earlier.settings.get("bottleneck_dir"):
    return None
  previous = files.join(output, PREVIOUS_FOLDER)
  is_other = earlier.settings.get("corrections") != corrections and is_completed(output, files)
  return previous if is_other or files.exists(previous) else None


def set_aside(output: str) -> None:
  """Moves the records of a finished local output to `PREVIOUS_FOLDER`."""
  previous = files.join(output, PREVIOUS_FOLDER)
  reopen_folder(output, files)
  files.make_folder(previous)
  os.rename(files.join(output, RECORDS_FOLDER), files.join(previous, RECORDS_FOLDER))


def store_folder(output: str, fingerprint: str) -> str:
  """Returns the folder of a trunk's bottlenecks in another command's output."""
  return files.join(output, STORES_FOLDER, fingerprint[:12])


def find_stores(
  folders: Iterable[str], fingerprint: str, preprocessing: str, may_be_imported: bool = False
) -> list[str]:
  """Returns the stores in some folders, in order, each once.

  Raises InputError if a folder has no finished store with records of this trunk and preprocessing.

  Args:
    folders: stores, or folders of stores.
    fingerprint: of the current trunk; `preprocessing` is the current version.
    may_be_imported: whether to accept bottlenecks of `retrain.py` (`--bottleneck_dir`).
  """
  stores = dict(_find_store(folder, fingerprint, preprocessing) for folder in folders)
  for path, info in stores.items():
    if not may_be_imported and info.settings.get("bottleneck_dir"):
      raise InputError(
        f"some bottlenecks in {path} were imported from retrain.py with --bottleneck_dir: use that flag here too, or"
        " omit --reuse."
      )
  return list(stores)


def trunks_in(folder: str) -> list[TrunkInfo]:
  return [info.trunk for info in _stores_in(folder).values()]


def _stores_in(folder: str) -> dict[str, RunInfo]:
  """Returns path -> info of the stores in a folder, itself included."""
  within = files.match_in(folder, f"{STORES_FOLDER}/*/{INFO_FILE}")
  candidates = [folder, *(stat.path.removesuffix(f"/{INFO_FILE}") for stat in within)]
  infos = ((path, find_info(path, files)) for path in candidates)
  return {path: info for path, info in infos if info and info.stage in STAGES and info.trunk != NO_TRUNK}


def _find_store(folder: str, fingerprint: str, preprocessing: str) -> tuple[str, RunInfo]:
  stores, leave_out = _stores_in(folder), f"omit {flag('reuse')} {folder}"
  if not stores:
    raise InputError(
      f"{flag('reuse')} {folder} contains no bottlenecks: give the output of `beam-retrain bottlenecks`, or an"
      f" evaluation with a folder {STORES_FOLDER}/."
    )
  path = next((path for path, info in stores.items() if info.trunk.fingerprint == fingerprint), "")
  if not path:
    trunks = [info.trunk for info in stores.values()]
    shown = "; ".join(map(str, trunks))
    reasons = [trunk.variant.unsupported_reason() for trunk in trunks]
    if all(reasons):
      raise InputError(
        f"the bottlenecks in {folder} are of a trunk ({shown}) that this machine cannot run ({reasons[0]}), not of the"
        f" current one ({fingerprint[:12]}): {leave_out} to compute all bottlenecks again."
      )
    raise InputError(
      f"the bottlenecks in {folder} are of another trunk ({shown}) than the current one ({fingerprint[:12]}):"
      f" {leave_out}, or use that trunk with the same {flag('precision')} and {flag('runtime')}."
    )
  if (version := stores[path].settings.get("preprocessing")) != preprocessing:
    raise InputError(
      f"the bottlenecks in {path} were computed with preprocessing {version!r}, but the current one is"
      f" {preprocessing!r}: {leave_out}."
    )
  if not is_completed(path, files):
    raise InputError(f"{path} is not finished: finish the run that wrote it, or {leave_out}.")
  for name, fault in find_faults(path, files, names=(INFO_FILE,)):  # damaged records are computed again
    raise InputError(f"{path}/{name} {fault}: {leave_out}, or compute them again.")
  if not record_files(path):
    raise InputError(f"{path} has no {RECORDS_FOLDER}: {leave_out}, or compute them again.")
  return path, stores[path]


def record_files(store: str) -> list[str]:
  return [stat.path for stat in files.match_in(files.join(store, RECORDS_FOLDER), "*.tfrecord")]


def locate_bottlenecks(path: str) -> Iterator[tuple[bytes, int]]:
  """Yields (SHA-256 of the image, 32 bytes; start byte) for each record.

  Reads and checks every byte. Raises DamagedError if the file is damaged, or has other contents.
  """
  with files.open_to_read(path) as file:
    for position, record in locate_records(file, path):
      try:
        yield digest_of_record(record), position
      except KeyError as error:
        raise DamagedError(f"{path} contains a record without {error}: write it again.") from error


def locate_sound(path: str) -> Iterator[tuple[bytes, int]]:
  """Like `locate_bottlenecks`, but stops at the first damage and prints it."""
  try:
    yield from locate_bottlenecks(path)
  except (DamagedError, OSError) as error:
    cause = error.cause if isinstance(error, DamagedError) else f"{path} cannot be read: {error.strerror or error}"
    print(f"beam-retrain: {cause}: its remaining bottlenecks are computed again.", file=sys.stderr)


def read_shards(folder: str, percentages: SplitPercentages) -> Iterator[list[tuple[str, Bottleneck]]]:
  """Yields the (split, bottleneck) pairs of each shard.

  Order and splits are those of `train`: `percentages` select validation images among the training ones. Empty shards
  are left out.
  """
  for of_file in (TRAINING, VALIDATION, TESTING):
    for stat in files.match_in(files.join(folder, RECORDS_FOLDER), f"{of_file}-*.tfrecord"):
      with files.open_to_read(stat.path) as file:
        stored = [decode_bottleneck(record) for record in read_records(file, stat.path)]
      if stored:
        yield [(percentages.split_of(one.key, given=of_file), one) for one in stored]
