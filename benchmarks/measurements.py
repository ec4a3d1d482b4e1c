"""What the benchmark makes of what its contenders hand back: rates, medians, ratios, and whether the claims hold.

Pure arithmetic, no process is run here.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.peers.protocol import End

# Of Inception v3 without its top at 299 x 299: a multiplication and an addition count as two.
GFLOP_PER_IMAGE = 11.4
# A batch at the start may still compile, or fill a queue; a second one where there are many.
_WARM_UP, _MANY_BATCHES = 2, 6
_LEAST_PART = 4  # a fourth of the images


@dataclasses.dataclass(frozen=True)
class Run:
  """One process that was measured.

  Attributes:
    images: how many it did.
    steady: images/s once it runs; None where it did too few to tell.
    whole_secs: from the start of the process to its end.
    peak_mb: largest resident memory of one of its processes.
    cosine: the least one of its vectors with ours in float32; None where there is nothing to compare.
    ready_secs: what loading the network and its first batch took; None where it was not measured apart.
  """

  images: int
  steady: float | None
  whole_secs: float
  peak_mb: float
  cosine: float | None = None
  ready_secs: float | None = None

  @property
  def whole_rate(self) -> float:
    return self.images / self.whole_secs


def steady_rate(ends: Sequence[End]) -> float | None:
  """Returns images/s from when every worker is warm until the last batch is done; None: there is too little in
  between.

  Args:
    ends: [worker, seconds, images] of each batch.
  """
  of_worker: dict[str, list[float]] = {}
  for worker, seconds, _ in ends:
    of_worker.setdefault(worker, []).append(seconds)
  if not of_worker:
    return None
  warm = max(sorted(times)[_warm_up(len(times)) - 1] for times in of_worker.values())
  last = max(seconds for _, seconds, _ in ends)
  images = sum(count for _, seconds, count in ends if seconds > warm)
  # What is left of a short run would tell of its end.
  return images / (last - warm) if last > warm and images * _LEAST_PART >= sum(count for _, _, count in ends) else None


def _warm_up(batches: int) -> int:
  return _WARM_UP if batches >= _MANY_BATCHES else 1


def least_cosine(one: np.ndarray, other: np.ndarray) -> float:
  """Returns the smallest cosine, -1..1, of a row with the same row of the other, as far as both go.

  Raises:
    ValueError: there is no row to compare, or they have not the same length.
  """
  rows = min(len(one), len(other))
  if not rows or one.shape[1:] != other.shape[1:]:
    raise ValueError(f"vectors of the shapes {one.shape} and {other.shape} cannot be compared")
  first, second = one[:rows].astype(np.float64), other[:rows].astype(np.float64)
  lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
  # A vector of zeros has no direction: it is like nothing.
  products = np.sum(first * second, axis=1)
  return float(np.min(np.divide(products, lengths, out=np.zeros(rows), where=lengths > 0)))


def median_run(runs: Sequence[Run]) -> Run:
  """Returns the medians of the runs of one contender; the cosine is the worst one, the memory the most."""
  steady = [run.steady for run in runs if run.steady is not None]
  cosines = [run.cosine for run in runs if run.cosine is not None]
  ready = [run.ready_secs for run in runs if run.ready_secs is not None]
  return Run(
    images=runs[0].images,
    steady=statistics.median(steady) if steady else None,
    whole_secs=statistics.median(run.whole_secs for run in runs),
    peak_mb=max(run.peak_mb for run in runs),
    cosine=min(cosines, default=None),
    ready_secs=statistics.median(ready) if ready else None,
  )


@dataclasses.dataclass(frozen=True)
class Claim:
  """Something that is to be shown: `value` is at least (or at most) `bound`; None: not measured in this run."""

  text: str
  value: float | None
  bound: float
  at_most: bool = False

  @property
  def holds(self) -> bool:
    if self.value is None:
      return False
    return self.value <= self.bound if self.at_most else self.value >= self.bound

  def __str__(self) -> str:
    verdict = "not measured" if self.value is None else "yes" if self.holds else "NO"
    found = "" if self.value is None else f"{self.value:.2f}, "
    return f"{verdict:12} {self.text}: {found}at {'most' if self.at_most else 'least'} {self.bound:g}"


def ratio(one: float | None, other: float | None) -> float | None:
  return one / other if one is not None and other else None


def claims_of(
  ours: Mapping[str, Run],
  bare: Mapping[str, Run],
  peers: Mapping[str, Mapping[str, Run]],
  label_image: Run | None,
  seconds: Mapping[str, float],
) -> list[Claim]:
  """Returns what is to be shown, with what was found.

  Args:
    ours: precision -> medians of ours, by the runtime that is taken by default.
    bare: likewise of the prepared graph alone.
    peers: precision -> peer -> medians.
    label_image: of the article's script.
    seconds: row of another benchmark -> its seconds.
  """
  claims = []
  for precision, own in ours.items():
    ceiling = bare.get(precision)
    claims.append(
      Claim(f"{precision}: steady rate, of the bare graph's", ratio(own.steady, ceiling and ceiling.steady), 0.95)
    )
    rates = {name: run.steady for name, run in peers.get(precision, {}).items() if run.steady is not None}
    if rates:
      best = max(rates, key=lambda name: rates[name] or 0)
      claims.append(
        Claim(f"{precision}: steady rate, of the best peer's ({best})", ratio(own.steady, rates[best]), 1.0)
      )
    if ceiling and ceiling.ready_secs is not None:
      text = f"{precision}: loading the prepared trunk and the first batch, seconds"
      claims.append(Claim(text, ceiling.ready_secs, 3, at_most=True))
  fast, ceiling = ours.get("bfloat16"), bare.get("bfloat16")
  if fast:
    whole = ratio(fast.whole_rate, ceiling and ceiling.steady)
    claims.append(Claim(f"bfloat16: whole process over {fast.images:,} images, of the bare graph's rate", whole, 0.85))
    claims.append(
      Claim(
        "bfloat16: steady rate, times label_imageV3.py's", ratio(fast.steady, label_image and label_image.steady), 40
      )
    )
    small = ours.get("int8")
    claims.append(Claim("int8: steady rate, of bfloat16's", ratio(small and small.steady, fast.steady), 1.8))
  script = seconds.get("loop in the article's manner")
  for formats, bound in (("jpg", 0.5), ("jpg,tfrecord", 1.0)):
    name = f"convert --formats {formats}"
    claims.append(
      Claim(f"{name}, of the article's script's time", ratio(seconds.get(name), script), bound, at_most=True)
    )
  for name, bound in (("beam-retrain train", 30), ("beam-retrain evaluate, stored bottlenecks", 10)):
    claims.append(Claim(f"{name}, whole process, seconds", seconds.get(name), bound, at_most=True))
  return claims


def whole_claims(runs: Mapping[str, Mapping[int, Mapping[str, Run]]], ours: str) -> list[Claim]:
  """Returns, of each precision and number of images, the claim that our whole process is no slower than any peer's.

  Args:
    runs: precision -> images -> who -> medians.
    ours: who we are.
  """
  claims = []
  for precision, sizes in runs.items():
    for images, who in sizes.items():
      peers = {name: run.whole_secs for name, run in who.items() if name != ours}
      if peers and ours in who:
        best = min(peers, key=lambda name: peers[name])
        text = f"{precision}: {images:,} images, whole process, rate of the best peer's ({best})"
        claims.append(Claim(text, peers[best] / who[ours].whole_secs, 1.0))
  return claims
