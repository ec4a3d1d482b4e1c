"""The benchmark's results as text: the one table, which docs/results.md carries, and the claims under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.commands import table
from benchmarks.contenders import BARE, CONTENDERS, LABEL_IMAGE, OURS, Contender
from benchmarks.measurements import GFLOP_PER_IMAGE, Claim, Run, claims_of, median_run, ratio

HEAD = ("what", "who", "ratio", "steady state", "whole process", "more")
Results = Mapping[str, Sequence[Run]]
OtherRows = Mapping[str, Sequence[Mapping[str, Any]]]


def make_table(
  results: Results, limits: Mapping[str, Mapping[str, Any]], others: OtherRows, faults: Mapping[str, str]
) -> str:
  """Returns the table in Markdown.

  Args:
    results: contender's name -> its runs.
    limits: precision -> `gflops` and `how`, of the best matrix product.
    others: title -> rows of another benchmark: `name`, `seconds`, and maybe `ratio`, `against`, `note`.
    faults: name of a contender, or title of another benchmark -> why it was not measured.
  """
  medians = {name: median_run(runs) for name, runs in results.items() if runs}
  rows = [HEAD]
  for contender in CONTENDERS:
    if contender.name in medians:
      rows.append(_bottleneck_row(contender, medians, len(results[contender.name])))
    elif contender.name in faults:
      rows.append((_what(contender), contender.who, "-", "-", "-", f"not measured: {faults[contender.name]}"))
  for precision, limit in limits.items():
    possible = limit["gflops"] / GFLOP_PER_IMAGE
    beside = ratio(possible, _steady(medians, f"{OURS}, {precision}"))
    how = f"{limit['gflops']:,.0f} GFLOP/s, {limit['how']}; {GFLOP_PER_IMAGE} GFLOP an image"
    rows.append((f"bottlenecks, {precision}", "matrix product", _times(beside), f"{possible:,.0f}/s", "-", how))
  for title, found in others.items():
    for row in found:
      against = f" of {row['against']}" if row.get("ratio") is not None and row.get("against") else ""
      beside = "-" if row.get("ratio") is None else f"{row['ratio']:.2f}{against}"
      rows.append((title, str(row["name"]), beside, "-", f"{row['seconds']:.1f} s", str(row.get("note") or "")))
  titles = {contender.name for contender in CONTENDERS}
  rows += [(title, "-", "-", "-", "-", f"not measured: {why}") for title, why in faults.items() if title not in titles]
  return table(rows)


def _bottleneck_row(contender: Contender, medians: Mapping[str, Run], rounds: int) -> tuple[str, ...]:
  run = medians[contender.name]
  beside = ratio(run.steady, _steady(medians, f"{OURS}, {contender.precision}"))
  steady = "-" if run.steady is None else f"{run.steady:,.1f}/s" if run.steady < 100 else f"{run.steady:,.0f}/s"
  whole = f"{run.images:,} in {run.whole_secs:.1f} s, {run.whole_rate:,.1f}/s"
  notes = []
  if run.cosine is not None:
    notes.append(f"cosine {run.cosine:.5f}")
  if contender.counts_memory:
    notes.append(f"{run.peak_mb:,.0f} MB")
  if run.ready_secs is not None:
    notes.append(f"loaded, first batch done in {run.ready_secs:.1f} s")
  if rounds > 1:
    notes.append(f"median of {rounds}")
  return _what(contender), contender.who, _times(beside), steady, whole, ", ".join(notes)


def _what(contender: Contender) -> str:
  return f"bottlenecks, {contender.precision}"


def _steady(medians: Mapping[str, Run], name: str) -> float | None:
  return medians[name].steady if name in medians else None


def _times(value: float | None) -> str:
  return "-" if value is None else f"{value:.2f}"


def make_claims(results: Results, others: OtherRows) -> list[Claim]:
  """Returns what is to be shown, with what was found."""
  medians = {name: median_run(runs) for name, runs in results.items() if runs}
  ours, bare = ({}, {})  # type: tuple[dict[str, Run], dict[str, Run]]
  peers: dict[str, dict[str, Run]] = {}
  for contender in CONTENDERS:
    if contender.name not in medians:
      continue
    run = medians[contender.name]
    if contender.who in (OURS, BARE):
      (ours if contender.who == OURS else bare)[contender.precision] = run
    elif contender.is_peer:
      peers.setdefault(contender.precision, {})[contender.who] = run
  seconds = {str(row["name"]): float(row["seconds"]) for rows in others.values() for row in rows}
  label_image = next((medians[c.name] for c in CONTENDERS if c.who == LABEL_IMAGE and c.name in medians), None)
  return claims_of(ours, bare, peers, label_image, seconds)
