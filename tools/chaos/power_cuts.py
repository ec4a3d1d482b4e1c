"""Cuts the power: what was not synced is lost.

Each command works on an ext4 of its own in a loop device. Mounted with `data=writeback,noauto_da_alloc`, and with a
commit every five minutes, it writes to the device what was synced and little else; where another program syncs a file
of its own, it commits the names and renames of all files, but not their data. At the moment after the command ended,
or was killed, the device is copied as it is, and the copy mounted: that is what the machine finds after the power came
back, with the file system's own replay of its journal. So neither a record of the writes, which would miss those of
TensorFlow, nor a kernel module is needed; root is.
"""

from __future__ import annotations

import ctypes
import functools
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.chaos import cases, hook, processes
from tools.chaos.cases import Case
from tools.chaos.trials import LOST, SAME, Fault, NotReachedError, Trial
from tools.chaos.world import Place, World

SECTION = "power cuts"
POINTS: Sequence[tuple[Case, int, int]] = (
  (cases.CONVERT, 5, 1),
  (cases.CONVERT_FORKED, 5, 0),
  (cases.BOTTLENECKS, 6, 1),
  (cases.TRAIN, 8, 1),
  (cases.EVALUATE, 5, 1),
  (cases.REEVALUATE, 6, 1),
  (cases.RUN, 4, 0),
  (cases.RETRAIN, 3, 0),
  (cases.LABEL_IMAGE, 3, 0),
)
"""Points of the whole run, and of the short one; and each command once after it has said that it is done."""
_OPTIONS = "loop,data=writeback,noauto_da_alloc,commit=300"
_MEGABYTES = 300


def trials(world: World, seed: int, short: bool) -> Iterator[Trial]:
  for case, many, few in POINTS:
    if short and not few:
      continue
    for name, syncs in (("after it was done", False), ("after it was done, with a commit", True)):
      yield Trial(SECTION, case.name, name, lambda case=case, syncs=syncs: cut(world, case, hook.NEVER, syncs))
    random_ = random.Random(f"{seed} power {case.name}")
    for at, name in world.points(case, few if short else many, random_):
      syncs = random_.random() < 0.7
      act = functools.partial(cut, world, case, at, syncs)
      yield Trial(SECTION, case.name, f"with a commit, {name}" if syncs else name, act)


def cut(world: World, case: Case, at: int, syncs: bool) -> tuple[str, list[Fault]]:
  """Runs a command, cuts the power, looks at what is left, and runs it again."""
  if not world.isolated or os.getuid():
    raise NotReachedError("loop devices need root")
  disk = Disk(world.logs / f"{os.getpid()}-disk")
  with world.place(case, mount=disk.mount) as place:
    disk.sync(place.root)
    ended = place.run(case, plan=place.plan(at, hook.GROUP))
    disk.cut(place.root, syncs)
    faults = _promises(place, case, is_done=ended.code == 0)
    faults += place.faults(case, place.run(case))
    return SAME, faults


def _promises(place: Place, case: Case, is_done: bool) -> list[Fault]:
  """Checks what the command, and `COMPLETED`, have vouched for."""
  faults = []
  for stage in case.stages:
    if (place.root / stage / "COMPLETED").exists():
      faults += [Fault(LOST, f"COMPLETED is there, but {fault.text}") for fault in place.stage_difference(stage)]
    elif is_done:
      faults.append(Fault(LOST, f"the command was done, and {stage} is not finished"))
  return faults


class Disk:
  """An ext4 in a file in memory, whose power can be cut."""

  def __init__(self, folder: Path):
    self._folder = folder

  def mount(self, root: Path) -> None:
    processes.mount("tmpfs", "chaos", self._folder, "size=4g")
    image = self._folder / "before"
    with image.open("wb") as file:
      file.truncate(_MEGABYTES << 20)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", str(image))
    self._attach(image, root)

  def _attach(self, image: Path, root: Path) -> None:
    _run("mount", "-t", "ext4", "-o", _OPTIONS, str(image), str(root))

  def sync(self, root: Path) -> None:
    descriptor = os.open(root, os.O_RDONLY)
    if ctypes.CDLL(None).syncfs(descriptor):
      raise OSError("syncfs failed")
    os.close(descriptor)

  def cut(self, root: Path, syncs: bool) -> None:
    """Replaces what is mounted by what the device holds at this moment.

    Args:
      syncs: whether another program syncs a file of its own before, by which the file system commits its journal:
        names, sizes and renames of all files, without the data of those that were not synced.
    """
    other = root / "another program's"
    if syncs:
      with other.open("w") as file:
        file.write("synced")
        file.flush()
        os.fsync(file.fileno())
    _run("cp", "--sparse=always", str(self._folder / "before"), str(self._folder / "after"))
    processes.unmount(root)
    self._attach(self._folder / "after", root)
    other.unlink(missing_ok=True)


def _run(*command: str) -> None:
  program = shutil.which(command[0])
  if program is None:
    raise NotReachedError(f"{command[0]} is missing")
  done = subprocess.run([program, *command[1:]], capture_output=True, text=True)
  if done.returncode:
    raise NotReachedError(f"{command[0]}: {done.stderr.strip()}")
