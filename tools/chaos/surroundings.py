"""Full disks, a clock set back, read-only inputs, no /dev/shm, few file descriptors."""

from __future__ import annotations

import random
import resource
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.chaos import cases, hook, processes
from tools.chaos.cases import Case
from tools.chaos.trials import FAILED, NOTICED, SAME, TRACEBACK, Fault, NotReachedError, Trial
from tools.chaos.world import World, placed

SECTION = "surroundings"
# How many sizes of a disk are tried, in the whole run and in the short one.
DISKS: Sequence[tuple[Case, int, int]] = (
  (cases.CONVERT, 3, 1),
  (cases.BOTTLENECKS, 3, 1),
  (cases.BOTTLENECKS.cold(), 2, 0),
  (cases.TRAIN, 3, 1),
  (cases.EVALUATE, 3, 0),
  (cases.REEVALUATE, 3, 1),
  (cases.RUN, 2, 0),
  (cases.RETRAIN, 2, 0),
  (cases.LABEL_IMAGE, 1, 0),
)
CLOCKS = (cases.CONVERT, cases.BOTTLENECKS, cases.TRAIN, cases.EVALUATE, cases.REEVALUATE)
FEW_FILES = 64
_REMOUNT, _BIND, _READ_ONLY = 32, 4096, 1


def trials(world: World, seed: int, short: bool) -> Iterator[Trial]:
  random_ = random.Random(f"{seed} surroundings")
  for case, many, few in DISKS:
    for number in range(few if short else many):
      part = (number + random_.random()) / (few if short else many)
      name = f"{part:.0%} of the space that it needs"
      yield Trial("full disk", case.name, name, lambda case=case, part=part: fill_disk(world, case, part))
  for case in CLOCKS[:: 2 if short else 1]:
    yield Trial("clock set back", case.name, "a day, after a kill", lambda case=case: set_back(world, case, seed))
  for case in (cases.CONVERT_FORKED, *cases.ALL[1:])[:: 3 if short else 1]:
    yield Trial("read-only input", case.name, "mounted read-only", lambda case=case: read_only(world, case))
    yield Trial("no /dev/shm", case.name, "unmounted", lambda case=case: no_shm(world, case))
    yield Trial(f"ulimit -n {FEW_FILES}", case.name, "set", lambda case=case: few_files(world, case))
  if not short:
    for case in (cases.BOTTLENECKS.with_two(), cases.EVALUATE.with_two()):
      yield Trial("no /dev/shm", case.name, "unmounted", lambda case=case: no_shm(world, case))
      yield Trial(f"ulimit -n {FEW_FILES}", case.name, "set", lambda case=case: few_files(world, case))


def fill_disk(world: World, case: Case, part: float) -> tuple[str, list[Fault]]:
  """Runs a command on a disk that is too small, then again on a larger one."""
  _need_mounts(world)
  with world.place(case) as place:
    free = _size(world.saved / case.output) + (_size(world.saved / "cache") if case.is_cold else 0)
    size = _size(place.root) + int(free * part)
    processes.mount("tmpfs", "chaos", place.root, f"size={size >> 10}k", _REMOUNT)
    ended = place.run(case)
    faults = []
    if ended.code and not (ended.is_refused and "space" in ended.sentence and str(place.root) in ended.sentence):
      kind = TRACEBACK if ended.has_traceback else FAILED
      faults.append(Fault(kind, f"exit code {ended.code}, and the full disk is not named: {ended.sentence}"))
    processes.mount("tmpfs", "chaos", place.root, "size=2g", _REMOUNT)
    return NOTICED if ended.code else SAME, faults + place.faults(case, place.run(case))


def set_back(world: World, case: Case, seed: int) -> tuple[str, list[Fault]]:
  """Kills a command, sets the clock back, and runs it again."""
  program = shutil.which("faketime")
  if program is None:
    raise NotReachedError("faketime is missing: on Debian install faketime")
  total = len(world.operations[case.name])
  with world.place(case) as place:
    place.run(case, plan=place.plan(random.Random(seed).randrange(total // 2, total), hook.GROUP))
    again = place.run_fresh(case, (program, "-f", "-1d"), FAKETIME_DONT_FAKE_MONOTONIC="1")
    return SAME, place.faults(case, again)


def read_only(world: World, case: Case) -> tuple[str, list[Fault]]:
  """Runs a command whose inputs cannot be written."""
  _need_mounts(world)
  with world.place(case) as place:
    for name in map(placed, case.needs):
      path = place.root / name
      if name != case.output:
        processes.mount("none", str(path), path, flags=_BIND)
        processes.mount("none", "none", path, flags=_BIND | _REMOUNT | _READ_ONLY)
    return SAME, place.faults(case, place.run(case))


def no_shm(world: World, case: Case) -> tuple[str, list[Fault]]:
  _need_mounts(world)
  with world.place(case) as place:
    processes.unmount(Path("/dev/shm"))
    return SAME, place.faults(case, place.run(case))


def few_files(world: World, case: Case) -> tuple[str, list[Fault]]:
  """Runs a command with few file descriptors: it works, or says why not."""
  with world.place(case) as place:
    ended = place.run(case, prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES)))
    if ended.is_refused:
      return NOTICED, []
    return SAME, place.faults(case, ended)


def _need_mounts(world: World) -> None:
  if not world.isolated:
    raise NotReachedError("mounts need root, or a user's own namespace")


def _size(folder: Path) -> int:
  """Returns what a folder takes in memory, in whole pages."""
  return sum(-(-path.lstat().st_size // 4096) * 4096 + 4096 for path in folder.rglob("*"))
