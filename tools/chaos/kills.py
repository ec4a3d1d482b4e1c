"""Kills commands at points of their file operations, and runs them again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tools.chaos import hook
from tools.chaos.cases import (
  BOTTLENECKS,
  CONVERT,
  CONVERT_FORKED,
  EVALUATE,
  LABEL_IMAGE,
  PREDICT,
  REEVALUATE,
  RETRAIN,
  RUN,
  TRAIN,
  Case,
)
from tools.chaos.trials import NOT_REACHED, ORPHAN, SAME, Fault, Trial
from tools.chaos.world import World, anonymous, base_name

SECTION = "kill -9"
# Points of the whole run, and of the short one.
POINTS: Sequence[tuple[Case, int, int]] = (
  (CONVERT, 25, 5),
  (CONVERT_FORKED, 25, 5),
  (BOTTLENECKS, 25, 4),
  (BOTTLENECKS.cold(), 10, 1),
  (BOTTLENECKS.with_two(), 5, 0),
  (TRAIN, 30, 5),
  (EVALUATE, 25, 4),
  (EVALUATE.with_two(), 4, 0),
  (REEVALUATE, 25, 4),
  (REEVALUATE.with_two(), 4, 0),
  (PREDICT, 3, 1),
  (PREDICT.cold(), 3, 0),
  (RUN, 15, 2),
  (RUN.with_two(), 3, 0),
  (RETRAIN, 15, 2),
  (LABEL_IMAGE, 20, 3),
  (LABEL_IMAGE.with_two(), 3, 0),
)


def trials(world: World, seed: int, short: bool) -> Iterator[Trial]:
  """Yields seeded points, spread over each command's operations."""
  for case, many, few in POINTS:
    count = few if short else many
    operations = world.operations[base_name(case)]  # of variants: about as many
    total = len(operations)
    random_ = random.Random(f"{seed} {case.name}")
    for at in sorted(random_.sample(range(1, total + 1), min(count, total))):
      whom = random_.choice((hook.PROCESS, hook.GROUP))
      name = f"{whom} killed before operation {at} of {total}: {anonymous(operations[at - 1])}"
      yield Trial(SECTION, case.name, name, lambda case=case, at=at, whom=whom: kill(world, case, at, whom))


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
