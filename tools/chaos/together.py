"""Starts two and three commands at once into one output."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from tools.chaos.cases import ALL, CONVERT_FORKED, Case
from tools.chaos.trials import FAILED, ORPHAN, SAME, TRACEBACK, Fault, Trial
from tools.chaos.world import World

SECTION = "at once"
ROUNDS, SHORT_ROUNDS = 50, 2
_MAX_DELAY_SECS = 0.1


def trials(world: World, seed: int, short: bool) -> Iterator[Trial]:
  """Yields rounds of each command that has an output, the commands in turn."""
  for number in range(SHORT_ROUNDS if short else ROUNDS):
    for case in (CONVERT_FORKED if case.command == "convert" else case for case in ALL):
      if case.output and not (short and case.command in ("run", "retrain") and number):
        random_ = random.Random(f"{seed} {case.name} {number}")
        delays = [0.0, *(random_.choice((0.0, random_.uniform(0, _MAX_DELAY_SECS))) for _ in range(1 + number % 2))]
        name = f"round {number + 1}: {len(delays)}, begun after {', '.join(f'{delay:.2f}' for delay in delays)} s"
        yield Trial(SECTION, case.name, name, lambda case=case, delays=delays: compete(world, case, delays))


def compete(world: World, case: Case, delays: list[float]) -> tuple[str, list[Fault]]:
  """Starts a command several times: one works, the others are told so."""
  with world.place(case) as place:
    running = []
    for delay in delays:
      time.sleep(delay)
      running.append(place.start(case))
    ended = [command.wait() for command in running]
    faults = []
    if orphans := [pid for command in running for pid in command.orphans()]:
      faults.append(Fault(ORPHAN, f"{len(orphans)} processes stay"))
    worked = [command for command in ended if command.code == 0]
    for command in ended:
      if command.code and not command.is_locked_out:
        kind = TRACEBACK if command.has_traceback else FAILED
        faults.append(Fault(kind, f"exit code {command.code}: {command.sentence}"))
    if len(worked) != 1:
      faults.append(Fault(FAILED, f"{len(worked)} of {len(ended)} worked"))
    return SAME, faults + (place.faults(case, worked[0]) if worked else [])
