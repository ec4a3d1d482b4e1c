"""The benchmark's results as text: the one table, which docs/results.md carries, and the claims under it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.commands import table
from benchmarks.contenders import BARE, CONTENDERS, LABEL_IMAGE, OURS, Contender
from benchmarks.measurements import GFLOP_PER_IMAGE, Claim, Run, claims_of, median_run, ratio, whole_claims

HEAD = ("what", "who", "steady state", "of ours", "whole process", "of ours", "more")
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
      rows.append((_what(contender), contender.who, "-", "-", "-", "-", f"not measured: {faults[contender.name]}"))
  for precision, limit in limits.items():
    possible = limit["gflops"] / GFLOP_PER_IMAGE
    beside = ratio(possible, _steady(medians, precision))
    how = f"{limit['gflops']:,.0f} GFLOP/s, {limit['how']}; {GFLOP_PER_IMAGE} GFLOP an image"
    rows.append((f"bottlenecks, {precision}", "matrix product", f"{possible:,.0f}/s", _times(beside), "-", "-", how))
  for title, found in others.items():
    for row in found:
      against = f"of {row['against']}: " if row.get("ratio") is not None and row.get("against") else ""
      beside = "-" if row.get("ratio") is None else f"{against}{row['ratio']:.2f}"
      rows.append((title, str(row["name"]), "-", "-", f"{row['seconds']:.1f} s", beside, str(row.get("note") or "")))
  titles = {contender.name for contender in CONTENDERS}
  rows += [
    (title, "-", "-", "-", "-", "-", f"not measured: {why}") for title, why in faults.items() if title not in titles
  ]
  return table(rows)


def _bottleneck_row(contender: Contender, medians: Mapping[str, Run], rounds: int) -> tuple[str, ...]:
  run = medians[contender.name]
  steady = "-" if run.steady is None else f"{run.steady:,.1f}/s" if run.steady < 100 else f"{run.steady:,.0f}/s"
  ours = medians.get(dataclasses.replace(contender, who=OURS).name)
  whole = ratio(run.whole_rate, ours and ours.whole_rate)
  notes = []
  if run.cosine is not None:
    notes.append(f"cosine {run.cosine:.5f}")
  if contender.counts_memory:
    notes.append(f"{run.peak_mb:,.0f} MB")
  if run.ready_secs is not None:
    notes.append(f"loaded, first batch done in {run.ready_secs:.1f} s")
  if rounds > 1:
    notes.append(f"median of {rounds}")
  beside = _times(ratio(run.steady, _steady(medians, contender.precision)))
  return _what(contender), contender.who, steady, beside, f"{run.whole_secs:.1f} s", _times(whole), ", ".join(notes)


def _what(contender: Contender) -> str:
  return f"bottlenecks, {contender.precision}, {contender.images:,} images"


def _steady(medians: Mapping[str, Run], precision: str) -> float | None:
  """Returns ours, of the run with the most images."""
  runs = [
    medians[each.name]
    for each in CONTENDERS
    if each.who == OURS and each.precision == precision and each.name in medians
  ]
  return max(runs, key=lambda run: run.images).steady if runs else None


def _times(value: float | None) -> str:
  return "-" if value is None else f"{value:.2f}"


def make_claims(results: Results, others: OtherRows) -> list[Claim]:
  """Returns what is to be shown, with what was found."""
  medians = {name: median_run(runs) for name, runs in results.items() if runs}
  ours, bare = ({}, {})  # type: tuple[dict[str, Run], dict[str, Run]]
  peers: dict[str, dict[str, Run]] = {}
  small: dict[str, dict[int, dict[str, Run]]] = {}
  for contender in CONTENDERS:  # of one precision those of more images come later
    if contender.name not in medians:
      continue
    run = medians[contender.name]
    if contender.who in (OURS, BARE):
      (ours if contender.who == OURS else bare)[contender.precision] = run
    elif contender.is_peer:
      peers.setdefault(contender.precision, {})[contender.who] = run
    if contender.who == OURS or contender.is_peer:
      small.setdefault(contender.precision, {}).setdefault(contender.images, {})[contender.who] = run
  seconds = {str(row["name"]): float(row["seconds"]) for rows in others.values() for row in rows}
  label_image = next((medians[c.name] for c in CONTENDERS if c.who == LABEL_IMAGE and c.name in medians), None)
  return [*claims_of(ours, bare, peers, label_image, seconds), *whole_claims(small, OURS), *row_claims(others)]


def row_claims(others: OtherRows) -> list[Claim]:
  """Returns the claims of rows that bring one: text, value, and what it is at most."""
  found = [row["claim"] for rows in others.values() for row in rows if "claim" in row]
  return [Claim(text, value, bound, at_most=True) for text, value, bound in found]
