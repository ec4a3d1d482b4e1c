"""`beam-retrain plan`: estimates what a `bottlenecks` job will take."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from beam_retrain.pipelines.plan.measure import Measurement, listed_reasons, measure
from beam_retrain.pipelines.plan.request import PlanRequest
from beam_retrain.reporting.cost_table import plan_table
from beam_retrain.transforms.core.printing import print, say
from beam_retrain.transforms.core.run.cost_model import Expectation, expect, to_json_entries
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from beam_retrain.transforms.core.run.next_steps import beside, say_next
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.io import files

run = PlanRequest.run


def execute(request: PlanRequest) -> int:
  whole = request.find_input()
  if not request.json:
    say("measuring the job on a few of the images: takes half a minute", file=sys.stderr)
  measured = measure(request, whole)
  expected = expect(measured.costs, scaled(measured.images, request.pictures), request.workers)
  if request.json:
    text = _to_json(measured, expected)
  else:
    text = plan_table(expected, _describe_trunk(measured.job), notes(measured, whole.engine))
  print(*text.split("\n"), sep="\n")
  if not request.json and request.pictures is None and request.workers == 1:
    folder = files.absolute(request.input)
    output = files.shown(beside(folder, "bottlenecks", files.exists))
    say_next("bottlenecks", *request.typed, "--output", output)
  return ExitCode.DONE


def scaled(images: Mapping[str, int], total: int | None) -> dict[str, int]:
  """Scales split -> images to `total` in all; None: unchanged."""
  if total is None:
    return dict(images)
  present = sum(images.values())
  scaled_images = {split: total * count // present for split, count in images.items()}
  scaled_images[next(iter(images))] += total - sum(scaled_images.values())
  return scaled_images


def _describe_trunk(job: RunInfo) -> list[str]:
  threads = job.execution["threads_per_process"]
  return [
    job.trunk.handle,
    f"{job.trunk.dimensions:,} numbers each",
    str(job.trunk.variant),
    f"{job.execution['batch_size']} images at a time",
    *([f"{threads} thread{'s' if threads > 1 else ''} a process"] if isinstance(threads, int) else []),
  ]


def notes(measured: Measurement, engine: str = "") -> list[str]:
  """Returns further lines for the user; `engine`: the job's runner."""
  lines = []
  if measured.bad:
    bad = f"{sum(measured.bad.values())} cannot be used ({listed_reasons(measured.bad)})"
    lines.append(f"of {measured.looked_at} images in the sample, {bad}")
  if secs := round(measured.first_secs):
    lines.append(f"the first such job takes {secs} s more to prepare and check the trunk: done now, and cached")
  if (limit := measured.decoding_megapixels) > 0:
    lines.append(f"JPEGs of more than {limit:.2g} megapixels take longer to decode than the trunk takes")
  if engine:
    lines.append(f"measured on this machine: the start of {engine} itself is not included")
  return lines


def _to_json(measured: Measurement, expected: Expectation) -> str:
  values = {
    "expected": to_json_entries(expected),
    "costs": to_json_entries(measured.costs),
    "looked_at": measured.looked_at,
    "bad": measured.bad,
    "first_secs": measured.first_secs,
    "decoding_megapixels": measured.decoding_megapixels,
    "trunk": measured.job.trunk.to_json(),
    "execution": measured.job.execution,
  }
  return json.dumps(values, indent=2)
