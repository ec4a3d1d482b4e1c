"""`plan`: what a `bottlenecks` job over some images will take. It is measured in pipelines/plan/measure.py."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from beam_retrain.pipelines.jobs.runner import DONE, guarded
from beam_retrain.pipelines.plan.measure import Rehearsal, listed_reasons, rehearse_apart
from beam_retrain.pipelines.plan.request import Request, make_parser, read_request
from beam_retrain.transforms.core.run.cost_model import Expectation, expect, in_words_of_json
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo

__all__ = ["make_parser", "run"]


def run(argv: Sequence[str]) -> int:
  """Measures, adds up and prints; returns the exit code.

  Raises:
    InputError: something that the user gave cannot be used, as the job itself would say.
  """
  request = read_request(argv)
  if not request.flags.json:
    print("measuring: the job over a few of the images, and its parts; half a minute", file=sys.stderr, flush=True)
  rehearsal = rehearse_apart(argv)
  expected = expect(rehearsal.costs, scaled(rehearsal.images, request.flags.pictures), request.flags.workers)
  if request.flags.json:
    print(json.dumps(to_json(rehearsal, expected), indent=2))
    return DONE
  from beam_retrain.reporting.cost_table import plan_table

  print(plan_table(expected, describe_trunk(rehearsal), notes(request, rehearsal)))
  return DONE


def scaled(images: dict[str, int], total: int | None) -> dict[str, int]:
  """Returns split -> images for so many in all, shared out as they are now; None: as they are."""
  if total is None:
    return images
  found = sum(images.values())
  scaled_down = {split: total * count // found for split, count in images.items()}
  first = next(iter(scaled_down))
  scaled_down[first] += total - sum(scaled_down.values())
  return scaled_down


def describe_trunk(rehearsal: Rehearsal) -> list[str]:
  """Returns what there is to say of the trunk and of how it runs."""
  trunk, execution = TrunkInfo.from_json(rehearsal.trunk), rehearsal.execution
  threads = execution["threads_per_process"]
  return [
    trunk.handle,
    f"{trunk.dimensions:,} numbers each",
    str(trunk.variant),
    f"{execution['batch_size']} images at a time",
    *([f"{threads} thread{'s' if threads > 1 else ''} a process"] if isinstance(threads, int) else []),
  ]


def notes(request: Request, rehearsal: Rehearsal) -> list[str]:
  """Returns what else the user should know, a line each."""
  lines = []
  if rehearsal.bad:
    bad = f"{sum(rehearsal.bad.values())} cannot be used ({listed_reasons(rehearsal.bad)})"
    lines.append(f"of {rehearsal.looked_at} images looked at, {bad}")
  if secs := round(rehearsal.first_secs):
    lines.append(f"the first such job takes {secs} s more, to prepare the trunk and check it: done now, and kept")
  if request.engine:
    lines.append(f"measured on this machine: how long {request.engine} itself takes to begin is not in it")
  return lines


def to_json(rehearsal: Rehearsal, expected: Expectation) -> dict[str, Any]:
  """Returns JSON values: `expected`, the `costs` that it is made of, the trunk and how it is run."""
  return {
    "expected": expected.to_json(),
    "costs": in_words_of_json(dataclasses.asdict(rehearsal.costs)),
    "looked_at": rehearsal.looked_at,
    "bad": rehearsal.bad,
    "first_secs": rehearsal.first_secs,
    "trunk": rehearsal.trunk,
    "execution": rehearsal.execution,
  }


if __name__ == "__main__":
  sys.exit(guarded(run, sys.argv[1:]))
