"""Damages each file of each finished folder, and runs the next command."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.chaos import cases
from tools.chaos.cases import Case
from tools.chaos.processes import Ended
from tools.chaos.trials import (
  FAILED,
  HARMLESS,
  MENDED,
  NOT_REACHED,
  NOTICED,
  PASSED,
  TRACEBACK,
  Fault,
  NotReachedError,
  Trial,
)
from tools.chaos.world import Place, World, anonymous, placed

SECTION = "damaged files"
EMPTY, HALF, FLIP = "emptied", "halved", "one byte flipped"
KINDS = (EMPTY, HALF, FLIP)
# A folder and the command that reads it.
READERS = (
  ("convert", cases.BOTTLENECKS),
  ("images", cases.EMBED_IMAGES),
  ("bottlenecks", cases.TRAIN),
  ("train", cases.EVALUATE),
  ("train", cases.PREDICT),
  (f"nights@before/{cases.NIGHT_BEFORE}", cases.REEVALUATE),
)
# A folder and the command that mends it; these take longer, so that each file is damaged in one of the ways.
MENDERS = (
  ("run", dataclasses.replace(cases.RUN, needs=("data", "run"))),
  ("retrain", dataclasses.replace(cases.RETRAIN, needs=("photos", "retrain"))),
)
VERIFIED = ("convert", "bottlenecks", "train", "evaluate", f"nights@before/{cases.NIGHT_BEFORE}", "labelled")
_SHORT_EVERY = 25
Result = tuple[str, list[Fault]]


def trials(world: World, seed: int, short: bool) -> Iterator[Trial]:
  """Yields each file of each folder with each kind of damage; the short run takes some of them."""
  found = [*_all(world, seed)]
  yield from (found[seed % _SHORT_EVERY :: _SHORT_EVERY] if short else found)


def _all(world: World, seed: int) -> Iterator[Trial]:
  for folder, case in READERS:
    for name in _files(world, folder):
      for kind in KINDS:
        yield _trial(world, folder, name, kind, case, seed, f"{_shown(folder)}, then {case.command}", read)
  for folder, case in MENDERS:
    for number, name in enumerate(_files(world, folder)):
      kind = KINDS[(number + seed) % len(KINDS)]
      yield _trial(world, folder, name, kind, case, seed, f"{folder}, then {case.command} again", mend)
  for folder in VERIFIED:
    argv = ("verify", f"--folder={{}}/{_in_place(folder)}")
    case = Case("verify", argv, (folder.partition("/")[0],), takes_runner=False)
    for name in _files(world, folder):
      for kind in KINDS:
        yield _trial(world, folder, name, kind, case, seed, f"{_shown(folder)}, then verify --folder", verify)


def _in_place(folder: str) -> str:
  first, slash, rest = folder.partition("/")
  return f"{placed(first)}{slash}{rest}"


def _shown(folder: str) -> str:
  return placed(folder.partition("/")[0])


def _trial(
  world: World, folder: str, name: str, kind: str, case: Case, seed: int, label: str, act: Callable[..., Result]
) -> Trial:
  path = f"{_in_place(folder)}/{name}"
  shown = anonymous(f"{path} {kind}")
  return Trial(SECTION, label, shown, lambda: act(world, path, kind, case, random.Random(f"{seed} {path}")))


def _files(world: World, folder: str) -> list[str]:
  """Returns the names of a saved folder's files that are not empty."""
  root = world.saved / folder
  paths = (path for path in root.rglob("*") if path.name != ".beam-retrain.log")  # which no command reads
  return sorted(str(path.relative_to(root)) for path in paths if path.is_file() and path.stat().st_size)


def damage(path: Path, kind: str, random_: random.Random) -> bytes:
  """Damages a file, as a disk would: without a new time. Returns what it now holds."""
  status, data = path.stat(), bytearray(path.read_bytes())
  if kind == FLIP:
    data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
  else:
    del data[0 if kind == EMPTY else len(data) // 2 :]
  path.write_bytes(data)
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
  return bytes(data)


def read(world: World, path: str, kind: str, case: Case, random_: random.Random) -> Result:
  """Runs a command on a damaged input: it fails with a sentence, or its result is the same."""
  with world.place(case) as place:
    damage(place.root / path, kind, random_)
    return judge(place, case, place.run(case), path)


def judge(place: Place, case: Case, ended: Ended, path: str) -> Result:
  """Says whether damage was noticed or harmless; all else is a fault."""
  if ended.is_refused:
    return NOTICED, []
  if ended.code:
    return NOT_REACHED, [Fault(TRACEBACK if ended.has_traceback else FAILED, f"{ended.code}: {ended.sentence}")]
  found = place.faults(case, ended, path)
  # A damaged night is left out of the comparison, and named.
  if found and any(part in ended.err for part in path.split("/")[1:]):
    return NOTICED, []
  return HARMLESS, [Fault(PASSED, f"exit code 0, but {found[0].text}")] if found else []


def mend(world: World, path: str, kind: str, case: Case, random_: random.Random) -> Result:
  """Runs a command into its own damaged output, which is then as undamaged.

  `retrain` replaces no model outside its work folder that may be the user's: it names the folder, and how to go on.
  """
  with world.place(case) as place:
    damaged = damage(place.root / path, kind, random_)
    ended = place.run(case)
    outside = place.root / path.partition("/")[0] / "saved_model"
    if ended.is_refused and f" --saved_model_dir {outside} is not " in ended.sentence:
      return NOTICED, []
    faults = place.faults(case, ended)
    if not faults and (place.root / path).is_file() and (place.root / path).read_bytes() == damaged:
      faults = [Fault(PASSED, f"{path} is still damaged")]
    return MENDED, faults


def verify(world: World, path: str, kind: str, case: Case, random_: random.Random) -> Result:
  """Runs `verify --folder`, which notices everything."""
  with world.place(case) as place:
    if place.run(case).code:
      raise NotReachedError("verify --folder does not accept the undamaged folder")
    damage(place.root / path, kind, random_)
    ended = place.run(case)
    if ended.code == 0:
      return NOT_REACHED, [Fault(PASSED, f"verify --folder says: {ended.out.strip()}")]
    return NOTICED, [] if ended.is_refused else [Fault(TRACEBACK, ended.sentence)]
