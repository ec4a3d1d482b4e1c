"""The page of the documentation: what was tried, and what became of it."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.chaos.trials import NOT_REACHED, RIGHT, WRONG, Outcome
from tools.chaos.world import anonymous

_MOST_EXAMPLES = 40

_ABOUT = Path(__file__).with_name("about.md")


class Facts(NamedTuple):
  command: str
  seed: int
  seconds: float
  jobs: int
  isolated: bool
  planned: int

  def lines(self) -> Iterator[str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield f"- command: `{self.command}`, seed {self.seed}, {time.strftime('%Y-%m-%d', time.gmtime())}"
    yield (
      f"- machine: {os.cpu_count()} cores, {memory:.0f} GB, Linux {platform.release()}, Python"
      f" {platform.python_version()}; {self.jobs} trials at a time, {self.seconds / 60:.1f} minutes"
    )
    if not self.isolated:
      yield "- without root or namespaces: full disks, read-only inputs, /dev/shm and power cuts could not be tried"


def page(outcomes: Sequence[Outcome], facts: Facts) -> str:
  """Returns the page, in Markdown."""
  lines = [_ABOUT.read_text(), "## This run", "", *facts.lines(), ""]
  kinds = Counter(fault.kind for outcome in outcomes for fault in outcome.faults)
  tried = sum(outcome.result != NOT_REACHED or bool(outcome.faults) for outcome in outcomes)
  lines += [f"{tried:,} of {facts.planned:,} planned trials ran to their end.", ""]
  lines += ["| what was found wrong | times |", "|---|---|"]
  lines += [f"| {text} | {kinds[kind]} |" for kind, text in WRONG.items()]
  for section in dict.fromkeys(outcome.section for outcome in sorted(outcomes, key=lambda outcome: outcome.section)):
    lines += ["", f"## {section}", "", *_table([outcome for outcome in outcomes if outcome.section == section])]
  lines += ["", "## Faults", "", *_faults(outcomes)]
  lines += ["", "## Not reached", "", *_not_reached(outcomes)]
  return "\n".join(lines) + "\n"


def _table(outcomes: Sequence[Outcome]) -> Iterator[str]:
  shown = [result for result in RIGHT if any(_result(outcome) == result for outcome in outcomes)]
  yield "| " + " | ".join(["", "planned", *shown, "with faults"]) + " |"
  yield "|---" * (len(shown) + 3) + "|"
  for case in sorted({outcome.case for outcome in outcomes}):
    ours = [outcome for outcome in outcomes if outcome.case == case]
    counts = Counter(map(_result, ours))
    cells = [case, str(len(ours)), *(str(counts[result]) for result in shown), str(counts["fault"])]
    yield "| " + " | ".join(cells) + " |"


def _result(outcome: Outcome) -> str:
  return "fault" if outcome.faults else outcome.result


def _faults(outcomes: Sequence[Outcome]) -> Iterator[str]:
  """Yields each fault once, with how often it was met, and one trial."""
  found: dict[tuple[str, str, str, str], list[str]] = {}
  for outcome in outcomes:
    for fault in outcome.faults:
      text = anonymous(" ".join(fault.text.split()))[:240]
      found.setdefault((outcome.section, outcome.case, fault.kind, text), []).append(outcome.trial)
  if not found:
    yield "None."
  for (section, case, kind, text), trials in sorted(found.items())[:_MOST_EXAMPLES]:
    yield f"- {section}, {case}: {kind}: {_code(text)} ({len(trials)} times; {_code(trials[0])})"
  if len(found) > _MOST_EXAMPLES:
    yield f"- and {len(found) - _MOST_EXAMPLES} more"


def _not_reached(outcomes: Sequence[Outcome]) -> Iterator[str]:
  left = Counter(
    (outcome.section, outcome.note or "the command ended before the point")
    for outcome in outcomes
    if outcome.result == NOT_REACHED and not outcome.faults
  )
  if not left:
    yield "Nothing that was planned."
  for (section, why), count in sorted(left.items()):
    yield f"- {section}: {count}: {why}"


def _code(text: str) -> str:
  return f"`{text.replace('`', chr(39))}`"
