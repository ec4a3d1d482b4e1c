"""Kills commands at points of their file operations, and runs them again."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Sequence

from tools.chaos import cases, hook
from tools.chaos.cases import Case
from tools.chaos.trials import NOT_REACHED, ORPHAN, SAME, Fault, Trial
from tools.chaos.world import World

SECTION = "kill -9"
# Points of the whole run, and of the short one.
POINTS: Sequence[tuple[Case, int, int]] = (
  (cases.CONVERT, 25, 5),
  (cases.CONVERT_FORKED, 25, 5),
  (cases.BOTTLENECKS, 25, 4),
  (cases.BOTTLENECKS.cold(), 10, 1),
  (cases.BOTTLENECKS.with_two(), 5, 0),
  (cases.TRAIN, 30, 5),
  (cases.EVALUATE, 25, 4),
  (cases.EVALUATE.with_two(), 4, 0),
  (cases.REEVALUATE, 25, 4),
  (cases.REEVALUATE.with_two(), 4, 0),
  (cases.PREDICT, 3, 1),
  (cases.PREDICT.cold(), 3, 0),
  (cases.RUN, 15, 2),
  (cases.RUN.with_two(), 3, 0),
  (cases.RETRAIN, 15, 2),
  (cases.LABEL_IMAGE, 20, 3),
  (cases.LABEL_IMAGE.with_two(), 3, 0),
)


def trials(world: World, seed: int, short: bool) -> Iterator[Trial]:
  """Yields seeded points, spread over each command's operations."""
  for case, many, few in POINTS:
    random_ = random.Random(f"{seed} {case.name}")
    for at, name in world.points(case, few if short else many, random_):
      whom = random_.choice((hook.PROCESS, hook.GROUP))
      act = functools.partial(kill, world, case, at, whom)
      yield Trial(SECTION, case.name, f"{whom} killed {name}", act)


def kill(world: World, case: Case, at: int, whom: str) -> tuple[str, list[Fault]]:
  """Kills a command and runs it again at once."""
  with world.place(case) as place:
    first = place.start(case, plan=place.plan(at, whom))
    ended = first.wait()
    again = place.run(case)
    orphans = first.orphans()
    if again.is_locked_out:  # by a worker that was about to notice that it is alone
      again = place.run(case)
    faults = [Fault(ORPHAN, f"{len(orphans)} of its processes stay")] if orphans else []
    faults += place.faults(case, again)
    return SAME if ended.is_killed else NOT_REACHED, faults
