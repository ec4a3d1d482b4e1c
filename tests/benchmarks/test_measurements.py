"""What the benchmark makes of what its contenders hand back."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.measurements import Claim, Run, claims_of, least_cosine, median_run, steady_rate


def test_a_steady_rate_begins_when_every_worker_is_warm():
  # Worker b is slow to start: what a did until then does not count, nor b's first batch.
  ends = [("a", 1.0, 32), ("a", 2.0, 32), ("b", 3.0, 32), ("a", 4.0, 32), ("b", 5.0, 8)]
  assert steady_rate(ends) == pytest.approx((32 + 8) / (5.0 - 3.0))
  assert steady_rate(ends[::-1]) == steady_rate(ends)


def test_of_many_batches_the_first_two_are_left_out():
  ends = [("", seconds, 10) for seconds in (9.0, 10.0, 10.2, 11.0, 11.5, 12.0)]
  assert steady_rate(ends) == pytest.approx(40 / 2.0)
  assert steady_rate(ends[1:]) == pytest.approx(40 / 2.0)  # of five, only the first


@pytest.mark.parametrize("ends", [[], [("", 1.0, 32)], [("a", 1.0, 32), ("b", 2.0, 32)], [("", 1.0, 58), ("", 2.0, 6)]])
def test_no_steady_rate_where_little_comes_after_the_start(ends):
  assert steady_rate(ends) is None


def test_the_least_cosine_is_of_rows_that_both_have():
  one = np.array([[1, 0], [1, 1], [0, 5]], np.float32)
  assert least_cosine(one, np.array([[2, 0], [3, 0]], np.float32)) == pytest.approx(np.sqrt(0.5))
  assert least_cosine(one, one) == pytest.approx(1)
  assert least_cosine(one, np.zeros((3, 2), np.float32)) == 0


@pytest.mark.parametrize("other", [np.empty((0, 2), np.float32), np.ones((2, 3), np.float32)])
def test_vectors_that_cannot_be_compared_are_no_proof(other):
  with pytest.raises(ValueError, match="cannot be compared"):
    least_cosine(np.ones((2, 2), np.float32), other)


def test_medians_of_rounds():
  runs = [Run(100, 20.0, 9.0, 50, 0.99), Run(100, 30.0, 5.0, 70, 0.98, 1.5), Run(100, None, 6.0, 60, None, 2.5)]
  assert median_run(runs) == Run(100, 25.0, 6.0, 70, 0.98, 2.0)
  assert median_run(runs[2:]).steady is None


def _claims(**changed):
  given = {
    "ours": {"bfloat16": Run(2000, 160, 14, 1), "int8": Run(2000, 280, 9, 1)},
    "bare": {"bfloat16": Run(2000, 165, 15, 1, ready_secs=3.5)},
    "peers": {"bfloat16": {"slow": Run(512, 90, 9, 1), "quick": Run(512, 150, 9, 1), "unknown": Run(9, None, 9, 1)}},
    "label_image": Run(24, 2, 30, 1),
    "seconds": {"loop in the article's manner": 10.0, "convert --formats jpg": 6.0},
  }
  return {claim.text: claim for claim in claims_of(**{**given, **changed})}


def test_claims_are_ratios_of_what_was_measured():
  claims = _claims()
  assert {text: round(claim.value, 3) for text, claim in claims.items() if claim.value is not None} == {
    "bfloat16: steady rate, of the bare graph's": round(160 / 165, 3),
    "bfloat16: steady rate, of the best peer's (quick)": round(160 / 150, 3),
    "bfloat16: loading the prepared trunk and the first batch, seconds": 3.5,
    "bfloat16: whole process over 2,000 images, of the bare graph's rate": round(2000 / 14 / 165, 3),
    "bfloat16: steady rate, times label_imageV3.py's": 80,
    "int8: steady rate, of bfloat16's": 1.75,
    "convert --formats jpg, of the article's script's time": 0.6,
  }
  held = {text for text, claim in claims.items() if claim.holds}
  assert "bfloat16: steady rate, of the bare graph's" in held
  assert "bfloat16: loading the prepared trunk and the first batch, seconds" not in held
  assert not held & {"int8: steady rate, of bfloat16's", "convert --formats jpg, of the article's script's time"}


def test_what_was_not_measured_holds_no_claim():
  claims = _claims(label_image=None, bare={}, seconds={})
  missing = [claim for claim in claims.values() if claim.value is None]
  assert {claim.text for claim in missing} >= {
    "bfloat16: steady rate, of the bare graph's",
    "int8: steady rate, of the bare graph's",
    "bfloat16: steady rate, times label_imageV3.py's",
    "convert --formats jpg,tfrecord, of the article's script's time",
  }
  assert not any(claim.holds for claim in missing)
  assert str(missing[0]).startswith("not measured")


def test_a_claim_says_whether_it_holds():
  assert str(Claim("speed", 0.5, 0.6)) == f"{'NO':12} speed: 0.50, at least 0.6"
  assert str(Claim("time", 0.5, 0.6, at_most=True)) == f"{'yes':12} time: 0.50, at most 0.6"
