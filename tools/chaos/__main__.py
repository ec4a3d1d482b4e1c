"""`python -m tools.chaos`: tries everything, and writes the page about it."""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tools.chaos import damage, kills, power_cuts, processes, report, surroundings, together
from tools.chaos.trials import NOT_REACHED, Outcome, Trial, run_trials
from tools.chaos.world import new_world

_SECTIONS = {
  "kills": kills.trials,
  "damage": damage.trials,
  "power": power_cuts.trials,
  "together": together.trials,
  "surroundings": surroundings.trials,
}
# How many trials of each section are among the first of all.
_SHARES = {"kills": 240, "damage": 150, "power": 40, "together": 60, "surroundings": 50}
_PAGE = Path(__file__).parents[2] / "docs" / "chaos.md"


def main() -> int:
  """Returns 1 if a fault was found."""
  given = sys.argv[1:]
  flags = _parser().parse_args(given)
  began = time.monotonic()
  isolated = processes.isolate()
  processes.load()
  gc.freeze()
  outcomes: list[Outcome] = []
  with new_world(isolated) as world:
    for name in world.make():
      _say(began, f"undisturbed: {name}")
    jobs = (flags.jobs or os.cpu_count() or 1) if isolated else 1
    until = began + 60 * flags.minutes
    trials = _mixed(
      {name: [*_SECTIONS[name](world, flags.seed, flags.short)] for name in flags.only or _SECTIONS}, flags.seed
    )
    if flags.named:
      trials = [trial for trial in trials if any(text in ", ".join(trial[:3]) for text in flags.named)]
    planned = len(trials)
    for outcome in run_trials(trials[:: flags.every], jobs, until):
      outcomes.append(outcome)
      _say(began, _line(outcome))
  given = [word for word in given if not word.startswith("--output")]
  words = " ".join(["make chaos", *(["ARGS='" + " ".join(given) + "'"] if given else [])])
  facts = report.Facts(words, flags.seed, time.monotonic() - began, jobs, isolated, planned)
  page = report.page(outcomes, facts)
  if output := flags.output or (None if flags.short else _PAGE):
    Path(output).write_text(page)
  bad = [outcome for outcome in outcomes if outcome.faults]
  print(f"{len(outcomes)} tried, {len(bad)} with faults; {sum(o.result == NOT_REACHED for o in outcomes)} not reached")
  return int(bool(bad))


def _mixed(sections: Mapping[str, list[Trial]], seed: int) -> list[Trial]:
  """Mixes the sections, so that a run that ends early has tried something of everything, and most of the kills."""
  placed = []
  for name, trials in sections.items():
    random.Random(f"{seed} {name}").shuffle(trials)
    placed += [(number / min(_SHARES[name], len(trials)), name, trial) for number, trial in enumerate(trials)]
  return [trial for _, _, trial in sorted(placed, key=lambda entry: entry[:2])]


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
  parser.add_argument("--short", action="store_true", help="the part of five minutes")
  parser.add_argument("--seed", type=int, default=1, help="the same seed, the same trials (default: %(default)s)")
  parser.add_argument("--only", action="append", choices=tuple(_SECTIONS), help="one section; may be repeated")
  parser.add_argument("--named", action="append", metavar="TEXT", help="only trials whose line has it; may be repeated")
  parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th trial")
  parser.add_argument("--minutes", type=float, default=60, help="begin no trial later than this (default: %(default)s)")
  parser.add_argument("--jobs", type=int, help="trials at a time (default: one per core)")
  parser.add_argument("--output", help="write the page here (default: docs/chaos.md; of --short: nowhere)")
  return parser


def _line(outcome: Outcome) -> str:
  said = "; ".join(f"FAULT ({fault.kind}): {fault.text}" for fault in outcome.faults) or outcome.result
  note = f" ({outcome.note})" if outcome.note else ""
  return f"{outcome.section}, {outcome.case}, {outcome.trial}: {said}{note}"


def _say(began: float, text: str) -> None:
  print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
  sys.exit(main())
