"""The output of `plan` as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from beam_retrain.transforms.core.records.shards import IMAGES_PER_SHARD
from beam_retrain.transforms.core.run.cost_model import Expectation

_PARTS = {
  "start": "start Python, load libraries and the trunk, build the job",
  "listing": "skip names that are not in the sample",
  "planning": "list images, assign them to shards, count them",
  "trunk": "read, decode, compute, write",
  "closing": "analysis, split audit, ledger",
}
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def plan_table(expected: Expectation, trunk: Sequence[str], notes: Sequence[str] = ()) -> str:
  """Returns the table, then `notes`."""
  total_shards = sum(expected.shards.values())
  rows = [
    ("images", _counts(expected.images)),
    ("shards", f"{_counts(expected.shards)}, of about {IMAGES_PER_SHARD:,} images"),
    ("trunk", ", ".join(trunk)),
    ("speed", f"{_rate(expected.images_per_sec)} images/s{' on each worker' if expected.workers > 1 else ''}"),
  ]
  if expected.workers > 1:
    shards = "1 shard" if expected.rounds == 1 else f"{expected.rounds:,} shards"
    rows.append(("workers", f"{expected.workers:,}; the busiest has {shards}"))
  rows.append(("time", duration(expected.total_secs)))
  rows += [(f"  {part}", f"{duration(expected.seconds[part]):<14}{words}") for part, words in _PARTS.items()]
  rows.append(("memory", f"{size(expected.memory_bytes)} in each process"))
  rows.append(
    (
      "disk",
      f"{size(expected.disk_bytes)}: records {size(expected.records_bytes)}, trunk and the rest"
      f" {size(expected.folder_bytes)}",
    )
  )
  if expected.workers > total_shards:
    notes = [f"workers beyond {total_shards:,} have nothing to do: each shard has one worker", *notes]
  return "\n".join([f"{name:<12}{value}".rstrip() for name, value in rows] + list(notes))


def _counts(counts: Mapping[str, int]) -> str:
  each = ", ".join(f"{count:,} {split}" for split, count in counts.items())
  return f"{sum(counts.values()):,}: {each}" if len(counts) > 1 else each


def _rate(per_sec: float) -> str:
  return f"{per_sec:,.0f}" if per_sec >= 10 else f"{per_sec:.1f}"


def duration(secs: float) -> str:
  """Returns a time in two units, such as `7 min 12 s`."""
  if secs < 10:
    return f"{secs:.1f} s"
  whole = round(secs)
  if whole < 60:
    return f"{whole} s"
  if whole < 3600:
    return f"{whole // 60} min {whole % 60} s"
  minutes = round(secs / 60)
  if minutes < 24 * 60:
    return f"{minutes // 60} h {minutes % 60} min"
  hours = round(secs / 3600)
  days, rest = divmod(hours, 24)
  return f"{days:,} {'day' if days == 1 else 'days'} {rest} h"


def size(count: float) -> str:
  """Returns bytes in decimal units: `980 bytes`, `1.2 GB`."""
  unit = 0
  while count >= 999.5 and unit < len(_UNITS) - 1:
    count, unit = count / 1000, unit + 1
  return f"{count:.1f} {_UNITS[unit]}" if unit and count < 9.95 else f"{count:.0f} {_UNITS[unit]}"
