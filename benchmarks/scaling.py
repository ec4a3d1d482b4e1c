"""What a million and a billion images take, from figures measured on one machine: the tables of scaling.md.

  beam-retrain plan --input IMAGES --trunk bundled --json > bundled.json
  beam-retrain plan --input IMAGES --trunk keras:InceptionV3 --trunk_weights FILE --json > inception.json
  python -m benchmarks.growth --full --json idx.json
  python -m benchmarks.growth --full --folders --json folders.json
  python -m benchmarks.scaling --plan bundled.json --plan inception.json --growth idx.json --growth folders.json \\
    --bottlenecks DIR --page benchmarks/scaling.md

DIR is what a `beam-retrain bottlenecks` of the last of the plans' trunks wrote: its reports are looked at. Without
--page, the tables are printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beam_retrain.reporting.cost_table import duration, size
from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD, ShardReport
from beam_retrain.transforms.core.run.cost_model import JobCosts, expect
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from benchmarks.commands import table

IMAGES = (70_000, 1_000_000, 1_000_000_000)
WORKERS = (1, 10, 100, 1_000, 10_000)
_HOUR, _DAY = 3600.0, 86_400.0
_MEMORY_BYTES = 64e9
_FLOAT_BYTES = 4
_BEGIN, _END = "<!-- made by benchmarks/scaling.py: begin -->", "<!-- end -->"


@dataclasses.dataclass(frozen=True)
class Plan:
  """What `plan --json` found of a trunk."""

  name: str
  dimensions: int
  costs: JobCosts

  @classmethod
  def read(cls, path: Path) -> Plan:
    found = json.loads(path.read_text())
    trunk = TrunkInfo.from_json(found["trunk"])
    costs = JobCosts(**{name.replace("picture", "image"): value for name, value in found["costs"].items()})
    return cls(f"{trunk.handle}, {trunk.variant}", trunk.dimensions, costs)


@dataclasses.dataclass(frozen=True)
class Limit:
  """Something that grows in one process.

  Attributes:
    what: that grows.
    bytes_per_image: by how much; None: not measured.
    source: where that figure comes from.
    remedy: what to do before it breaks.
  """

  what: str
  bytes_per_image: float | None
  source: str
  remedy: str

  def breaks_at(self, memory_bytes: float) -> float | None:
    """Returns the number of images at which it fills a memory; None: never, or not measured."""
    return memory_bytes / self.bytes_per_image if self.bytes_per_image else None


def fewest_workers(costs: JobCosts, images: int, secs: float) -> int | None:
  """Returns the fewest workers that are done in time; None: not any number of them."""
  most = math.ceil(images / IMAGES_PER_SHARD)

  def total(workers: int) -> float:
    return expect(costs, {"all": images}, workers).total_secs

  if total(most) > secs:
    return None
  low, high = 1, most
  while low < high:
    middle = (low + high) // 2
    low, high = (low, middle) if total(middle) <= secs else (middle + 1, high)
  return low


def inputs_table(plans: Sequence[Plan]) -> str:
  """Returns the measured costs, one line each."""
  rows: list[tuple[str, ...]] = [("measured", *(plan.name for plan in plans))]
  figures = {
    "start, s": lambda costs: f"{costs.start_secs:.1f}",
    "listing an image for the sample, µs": lambda costs: f"{1e6 * costs.listing_secs:.1f}",
    "planning an image, µs": lambda costs: f"{1e6 * costs.planning_secs:.1f}",
    "a shard, besides its images, ms": lambda costs: f"{1e3 * costs.shard_secs:.0f}",
    "an image through the trunk, ms": lambda costs: f"{1e3 * costs.image_secs:.3f}",
    "closing a record, µs": lambda costs: f"{1e6 * costs.closing_secs:.1f}",
    "a record on disk, bytes": lambda costs: f"{costs.record_bytes:,.0f}",
    "a process's memory": lambda costs: size(costs.memory_bytes),
  }
  rows += [(name, *(figure(plan.costs) for plan in plans)) for name, figure in figures.items()]
  return table(rows)


def times_table(plan: Plan) -> str:
  """Returns the time of so many images on so many workers; a dash where there are more workers than shards."""
  rows: list[tuple[str, ...]] = [("pictures", *(_workers(workers) for workers in WORKERS))]
  for images in IMAGES:
    shards = math.ceil(images / IMAGES_PER_SHARD)
    times = (
      duration(expect(plan.costs, {"all": images}, workers).total_secs) if workers <= shards else "-"
      for workers in WORKERS
    )
    rows.append((f"{images:,}", *times))
  return table(rows)


def workers_table(plans: Sequence[Plan]) -> str:
  """Returns the fewest workers for an hour and for a day, and the hours of machines that they take."""
  rows: list[tuple[str, ...]] = [("trunk", "pictures", "machine hours", "workers for a day", "workers for an hour")]
  for plan in plans:
    for images in IMAGES:
      alone = expect(plan.costs, {"all": images}).total_secs / _HOUR
      needed = (fewest_workers(plan.costs, images, secs) for secs in (_DAY, _HOUR))
      shown = ("not possible" if workers is None else f"{workers:,}" for workers in needed)
      rows.append((plan.name, f"{images:,}", f"{alone:,.1f}", *shown))
  return table(rows)


def storage_table(plans: Sequence[Plan], report_bytes: float | None) -> str:
  """Returns what lies on disk: records, reports, files."""
  rows: list[tuple[str, ...]] = [("trunk", "pictures", "records", "shard files", "reports")]
  for plan in plans:
    for images in IMAGES:
      expected = expect(plan.costs, {"all": images})
      shards = sum(expected.shards.values())
      reports = "not measured" if report_bytes is None else size(shards * report_bytes)
      rows.append((plan.name, f"{images:,}", size(expected.records_bytes), f"{shards:,}", reports))
  return table(rows)


def limits_table(limits: Sequence[Limit], memory_bytes: float) -> str:
  """Returns what breaks, first things first."""
  rows: list[tuple[str, ...]] = [
    ("what grows in one process", "bytes per image", "measured by", f"full at {size(memory_bytes)}", "then")
  ]
  for limit in sorted(limits, key=lambda limit: limit.breaks_at(memory_bytes) or math.inf):
    images = limit.breaks_at(memory_bytes)
    grows = "not measured" if limit.bytes_per_image is None else f"{limit.bytes_per_image:,.1f}"
    full = "never" if images is None else f"{images:,.2g} images".replace("e+0", "e").replace("e+", "e")
    rows.append((limit.what, grows, limit.source, full if limit.bytes_per_image is not None else "", limit.remedy))
  return table(rows)


def bytes_per_image(rows: Sequence[Mapping[str, Any]], stage: str = "bottlenecks") -> float | None:
  """Returns how much a process's peak memory grows with each image, of what benchmarks/growth.py found.

  Args:
    rows: of one process: `stage`, `images`, `processes`, `peaks_mb`.
    stage: whose.
  """
  of_one = sorted(
    (row["images"], max(row["peaks_mb"])) for row in rows if (row["stage"], row["processes"]) == (stage, 1)
  )
  if len(of_one) < 2:
    return None
  (few, least), (many, most) = of_one[0], of_one[-1]
  return max(0.0, (most - least) * 1e6 / (many - few))


def measure_reports(folder: Path, count: int = 20_000) -> tuple[float, float]:
  """Returns (bytes of a report on disk, bytes of one in the memory of the step that closes the ledger)."""
  texts = [path.read_text() for path in sorted((folder / "records" / ".shards").glob("*.json"))]
  tracemalloc.start()
  kept = [ShardReport.from_json(texts[number % len(texts)]) for number in range(count)]
  held, _ = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  return sum(map(len, texts)) / len(texts), held / len(kept)


def find_limits(
  plan: Plan, growths: Mapping[str, Sequence[Mapping[str, Any]]], report_memory: float | None
) -> list[Limit]:
  """Returns what is known to grow.

  Args:
    plan: of the trunk with the longest bottlenecks.
    growths: name of the input -> what benchmarks/growth.py found.
    report_memory: bytes of a report in memory; None: not measured.
  """
  limits = [
    Limit(
      "`train`: the vectors, once, in memory or in a file",
      plan.dimensions * _FLOAT_BYTES,
      f"{plan.dimensions:,} numbers of {_FLOAT_BYTES} bytes",
      "a file in TMPDIR takes them; or a part of the data: a head does not need a billion images",
    ),
    Limit(
      "`bottlenecks`: the reports, one per shard, where the ledger is closed",
      None if report_memory is None else report_memory / IMAGES_PER_SHARD,
      "memory of 20,000 of them",
      "several data sets, each with a ledger of its own",
    ),
  ]
  limits += [
    Limit(
      f"`bottlenecks` of {name}, on this machine alone",
      bytes_per_image(rows),
      "benchmarks/growth.py, one process",
      "a cluster, whose shuffle is not one process's memory",
    )
    for name, rows in growths.items()
  ]
  return limits


def _workers(workers: int) -> str:
  return "1 worker" if workers == 1 else f"{workers:,} workers"


def put_into(page: str, text: str) -> str:
  """Returns the page with `text` between its two marks.

  Raises:
    SystemExit: they are not there.
  """
  head, begin, rest = page.partition(_BEGIN)
  _, end, tail = rest.partition(_END)
  if not (begin and end):
    raise SystemExit(f"the page has no {_BEGIN} ... {_END}")
  return f"{head}{begin}\n\n{text}\n\n{end}{tail}"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--plan", type=Path, action="append", required=True, metavar="FILE", help="of plan --json")
  parser.add_argument("--growth", type=Path, action="append", default=[], metavar="FILE", help="of benchmarks.growth")
  parser.add_argument("--bottlenecks", type=Path, metavar="DIR", help="a finished output, for its reports")
  parser.add_argument("--memory", type=float, default=_MEMORY_BYTES / 1e9, help="of a machine, in GB (default: 64)")
  parser.add_argument("--page", type=Path, metavar="FILE", help="the page to put the tables into")
  flags = parser.parse_args()
  plans = [Plan.read(path) for path in flags.plan]
  growths = {path.stem: json.loads(path.read_text()) for path in flags.growth}
  on_disk, in_memory = measure_reports(flags.bottlenecks) if flags.bottlenecks else (None, None)
  limits = find_limits(max(plans, key=lambda plan: plan.dimensions), growths, in_memory)
  parts = ["### Measured", inputs_table(plans), "### Time"]
  for plan in plans:
    parts += [f"{plan.name}:", times_table(plan)]
  parts += ["### Workers", workers_table(plans), "### Storage", storage_table(plans, on_disk)]
  parts += ["### What breaks first", limits_table(limits, flags.memory * 1e9)]
  text = "\n\n".join(parts)
  if flags.page:
    flags.page.write_text(put_into(flags.page.read_text(), text))
  else:
    print(text)


if __name__ == "__main__":
  main()
