"""Random nights, counted plainly, for tests of the comparison in one piece, in many, and on Beam."""

from __future__ import annotations

import itertools
import random

import pytest
from scipy.stats import binomtest

from beam_retrain.transforms.core.metrics.comparison import (
  Bucket,
  Plan,
)
from beam_retrain.transforms.core.metrics.predictions import Row
from beam_retrain.transforms.core.metrics.statistics import wilson_interval
from beam_retrain.transforms.core.records.slice_manifest import ManifestRow

NIGHT = "2026-11-23"


# Random nights, counted plainly and by the product. `test_compare_nights.py` sends the same ones through Beam.


def random_bucket(picks: random.Random, models: tuple[str, ...], columns: int) -> Bucket:
  """Returns two random nights: edited, new and gone images, changed labels, some without a row in the manifest."""
  labels = ["0", "1", "'=2", 'naïve, "3"\n']
  keys = [f"{picks.choice(['testing', 'é,x', '=y'])}/{number}.jpg" for number in range(picks.randint(1, 120))]
  keys = [f"'{key}" if key.startswith("=") else key for key in keys]
  sure = picks.random()
  known = ["False"] * 30 + ["True", ""]

  def predicted(actual: str) -> str:
    return actual if picks.random() < sure else picks.choice(labels)

  def row(key: str, actual: str, sha256: str) -> Row:
    guess, confidence = predicted(actual), f"{picks.choice([99.5, picks.uniform(25, 100)]):.4f}"
    return Row(key, actual, guess, confidence, sha256, random.Random(confidence).choice(known))

  then = {key: row(key, picks.choice(labels), f"{picks.getrandbits(64):064x}") for key in keys}
  tonight: dict[str, list[Row]] = {model: [] for model in models}
  for key in [key for key in keys if picks.random() > 0.1] + [
    f"new/{number}.jpg" for number in range(picks.randint(0, 9))
  ]:
    old = then.get(key)
    actual = old.actual if old and picks.random() > 0.1 else picks.choice(labels)
    sha256 = old.sha256 if old and picks.random() > 0.1 else f"{picks.getrandbits(64):064x}"
    for model in models:
      tonight[model].append(row(key, actual, sha256))
  values = ["w1", "ü\r\n,", "", "=1+1"]
  manifest = [
    ManifestRow(line, one.key, tuple(picks.choice(values[: 2 + column]) or "(empty)" for column in range(columns)))
    for line, one in enumerate(tonight[models[0]], 2)
    if picks.random() > 0.2
  ]
  if len(tonight[models[0]]) and not any(one.key in then for one in tonight[models[0]]):
    return random_bucket(picks, models, columns)  # nights of other images are an error
  if columns and not manifest:
    return random_bucket(picks, models, columns)  # so is a manifest without a row
  return Bucket(tonight, list(then.values()), manifest)


COUNTS = ["paired", "baseline_correct", "correct", "regressed", "fixed", "new", "gone", "edited"]


COUNTS += ["regressed_edited", "fixed_edited", "changed", "changed_correct", "changed_baseline_correct"]


COUNTS += ["new_correct", "gone_correct", "unseen_paired", "unseen_correct", "unseen_baseline_correct"]


COUNTS += ["unseen_regressed", "unseen_fixed"]


def plainly(bucket: Bucket, plan: Plan, min_slice_size: int) -> tuple[dict, dict, dict, dict[str, list[list[str]]]]:
  """Returns the comparisons, the slices, the pooled slices and the lines of the four files, from dicts and sets
  alone."""
  nights = {model: {row.key: row for row in rows} for model, rows in bucket.tonight.items()}
  first = nights[plan.models[0]]
  figures, slices, beside = {}, {}, {}
  lines: dict[str, list[list[str]]] = {"regressed": [], "fixed": [], "new": [], "gone": []}
  for model, now in nights.items():
    name = plan.baseline if model == plan.models[0] else plan.models[0]
    before = {row.key: row for row in bucket.baseline} if model == plan.models[0] else first
    slices[model], beside[model] = {}, {}
    for at, column in enumerate(plan.columns):
      value_of = {row.key: row.values[at] for row in bucket.manifest}
      slices[model][column], beside[model][column] = _slice_plainly(now, value_of, min_slice_size)
    if name is None:
      figures[model] = {**dict.fromkeys(["baseline", *COUNTS, "drop", "p_value"]), "verdict": "no baseline"}
      continue
    both = sorted(now.keys() & before.keys())
    was = {key for key in both if before[key].actual == before[key].predicted}
    is_now = {key for key in both if now[key].actual == now[key].predicted}
    for kind, keys in (("regressed", was - is_now), ("fixed", is_now - was)):
      for key in sorted(keys):
        one, other = now[key], before[key]
        edited = str(one.sha256 != other.sha256)
        cells = [key, one.actual, other.predicted, other.confidence, one.predicted, one.confidence, edited, model, name]
        lines[kind].append([*cells, one.sha256])
    if model == plan.models[0]:
      for key in sorted(now.keys() - before.keys()):
        one = now[key]
        lines["new"].append(
          [key, one.actual, one.predicted, one.confidence, str(one.actual == one.predicted), one.sha256]
        )
      for key in sorted(before.keys() - now.keys()):
        lines["gone"].append([key, *before[key][1:5]])
    changed_keys = {key for key in both if now[key][1::3] != before[key][1::3]}  # label, SHA-256
    edited_keys = {key for key in both if now[key].sha256 != before[key].sha256}
    unseen = {key for key in both if now[key].trained_on == "False" and before[key].trained_on in ("", "False")}
    of = unseen or set(both)
    worse, better = len((was - is_now) & of), len((is_now - was) & of)
    p_value = binomtest(worse, worse + better, 0.5).pvalue if worse + better else 1.0
    significant = "worse" if worse > better else "better"
    figures[model] = {
      "baseline": name,
      "paired": len(both),
      "baseline_correct": len(was),
      "correct": len(is_now),
      "regressed": len(was - is_now),
      "fixed": len(is_now - was),
      "new": len(now.keys() - before.keys()),
      "gone": len(before.keys() - now.keys()),
      "edited": len(edited_keys),
      "regressed_edited": len(edited_keys & (was - is_now)),
      "fixed_edited": len(edited_keys & (is_now - was)),
      "changed": len(changed_keys),
      "changed_correct": len(changed_keys & is_now),
      "changed_baseline_correct": len(changed_keys & was),
      "new_correct": sum(now[key].actual == now[key].predicted for key in now.keys() - before.keys()),
      "gone_correct": sum(before[key].actual == before[key].predicted for key in before.keys() - now.keys()),
      "unseen_paired": len(unseen),
      "unseen_correct": len(unseen & is_now),
      "unseen_baseline_correct": len(unseen & was),
      "unseen_regressed": len(unseen & was - is_now),
      "unseen_fixed": len(unseen & is_now - was),
      "drop": (len(was & of) - len(is_now & of)) / len(of) if of else None,
      "p_value": pytest.approx(p_value, rel=1e-9),
      "verdict": significant if p_value < 0.05 else "no difference shown",
    }
  for kind in ("regressed", "fixed"):
    lines[kind].sort(key=lambda cells: (cells[7], cells[0]))
  return figures, slices, beside, lines


def _slice_plainly(now: dict[str, Row], value_of: dict[str, str], min_slice_size: int) -> tuple[dict, dict]:
  groups: dict[str, list[Row]] = {}
  for key, row in now.items():
    groups.setdefault(value_of.get(key, ""), []).append(row)
  unlisted = groups.pop("", [])
  small = [rows for rows in groups.values() if len(rows) < min_slice_size]
  slices = {value: _rate_plainly(rows) for value, rows in groups.items() if len(rows) >= min_slice_size}
  pool = {"slices": len(small), "fewer_than": min_slice_size, **_rate_plainly(list(itertools.chain(*small)))}
  return slices, {"small": pool if small else None, "unlisted": _rate_plainly(unlisted) if unlisted else None}


def _rate_plainly(rows: list[Row]) -> dict:
  right = sum(row.actual == row.predicted for row in rows)
  return {
    "pictures": len(rows),
    "correct": right,
    "accuracy": right / len(rows) if rows else None,
    "interval_95": list(wilson_interval(right, len(rows))),
  }


def random_case(seed: int) -> tuple[Bucket, Plan, int]:
  """Returns nights, what to compare of them, and the smallest slice."""
  picks = random.Random(seed)
  models = ("model", "candidate")[: picks.randint(1, 2)]
  columns = ("writer", "=device", "day")[: picks.randint(0, 3)]
  bucket = random_bucket(picks, models, len(columns))
  baseline = NIGHT if picks.random() > 0.2 else None
  plan = Plan(models, baseline, "m.csv" if columns else None, columns)
  return bucket if baseline else bucket._replace(baseline=[]), plan, picks.randint(1, 40)
