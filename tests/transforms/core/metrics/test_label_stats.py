"""The counting, cut in several ways, against scikit-learn's metrics; by confidence, against a plain loop."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that
from sklearn import metrics as sk

from beam_retrain.transforms.core.metrics import label_stats
from beam_retrain.transforms.core.metrics.figures import Calibration
from beam_retrain.transforms.core.metrics.label_stats import LabelCounts, Outcome, evaluate_in_memory, extract, merge
from beam_retrain.transforms.core.metrics.metrics_file import model_to_json

# Not in sorted order; `quince` occurs nowhere; nothing is ever taken for a `fig`.
LABELS = ["zebra", "ant", "fig", "=cmd", "quince", "mule"]
ACTUAL = ["zebra", "ant", "fig", "=cmd", "mule"]
PREDICTED = ["zebra", "ant", "=cmd", "mule"]


def _draw(count: int, seed: int = 5) -> tuple[list[Outcome], np.ndarray]:
  """Returns outcomes, and the scores behind them: float32 [count, len(LABELS)]."""
  rng = np.random.default_rng(seed)
  scores = rng.dirichlet(np.full(len(LABELS), 0.4), count).astype(np.float32)
  scores[:, [LABELS.index("fig"), LABELS.index("quince")]] *= 1e-3
  scores /= scores.sum(axis=1, keepdims=True)
  outcomes = []
  for row in scores:
    actual = LABELS.index(str(rng.choice(ACTUAL)))
    if rng.random() < 0.5:  # right about half the time
      actual = int(row.argmax()) if LABELS[int(row.argmax())] in ACTUAL else actual
    rank = int((row > row[actual]).sum()) + 1
    outcomes.append(Outcome(LABELS[actual], LABELS[int(row.argmax())], float(row.max()), float(row[actual]), rank))
  return outcomes, scores


def _count(outcomes: list[Outcome]) -> LabelCounts:
  counts = LabelCounts()
  for outcome in outcomes:
    label_stats.add(counts, outcome)
  return counts


OUTCOMES, SCORES = _draw(500)
STATS = evaluate_in_memory(OUTCOMES, LABELS)
TRUE = [outcome.actual for outcome in OUTCOMES]
GIVEN = [outcome.predicted for outcome in OUTCOMES]


def test_the_drawn_data_has_the_awkward_labels() -> None:
  assert set(TRUE) == set(ACTUAL)
  assert set(GIVEN) == set(PREDICTED)
  assert 0.2 < np.mean(np.array(TRUE) == GIVEN) < 0.9


def test_per_label_figures_are_scikit_learns() -> None:
  precision, recall, f1, support = sk.precision_recall_fscore_support(
    TRUE, GIVEN, labels=LABELS, average=None, zero_division=np.nan
  )

  def ours(name: str) -> list[float]:
    return [math.nan if getattr(row, name) is None else getattr(row, name) for row in STATS.rows]

  np.testing.assert_allclose(ours("precision"), precision, rtol=1e-12)
  np.testing.assert_allclose(ours("recall"), recall, rtol=1e-12)
  np.testing.assert_allclose(ours("accuracy"), recall, rtol=1e-12)
  np.testing.assert_allclose(ours("f1"), f1, rtol=1e-12)
  assert [row.support for row in STATS.rows] == support.tolist()


def test_confusion_and_accuracy_are_scikit_learns() -> None:
  np.testing.assert_array_equal(STATS.confusion, sk.confusion_matrix(TRUE, GIVEN, labels=LABELS))
  assert STATS.accuracy == pytest.approx(sk.accuracy_score(TRUE, GIVEN), rel=1e-12)
  assert STATS.correct == sk.accuracy_score(TRUE, GIVEN, normalize=False)


@pytest.mark.parametrize("kind", ["macro", "weighted"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_averages_are_those_of_scikit_learns_defaults(kind: str) -> None:
  expected = sk.precision_recall_fscore_support(TRUE, GIVEN, average=kind)[:3]
  found = getattr(STATS, kind)
  assert [found.precision, found.recall, found.f1] == pytest.approx(expected, rel=1e-12)


def test_what_needs_scores() -> None:
  order = sorted(LABELS)  # scikit-learn wants the columns in sorted order
  columns = SCORES[:, [LABELS.index(label) for label in order]]
  right = np.array(TRUE) == GIVEN
  assert STATS.log_loss == pytest.approx(sk.log_loss(TRUE, columns, labels=order), rel=1e-5)
  low, high = STATS.top_3_accuracy_interval
  assert low < STATS.top_3_accuracy < high
  assert STATS.top_3_accuracy == pytest.approx(sk.top_k_accuracy_score(TRUE, columns, k=3, labels=order))
  assert STATS.mean_confidence_right == pytest.approx(SCORES.max(axis=1)[right].mean(), rel=1e-5)
  assert STATS.mean_confidence_wrong == pytest.approx(SCORES.max(axis=1)[~right].mean(), rel=1e-5)


def test_a_score_of_zero_is_clipped_as_scikit_learn_does() -> None:
  outcomes = [Outcome("a", "b", 1.0, 0.0, 2), Outcome("b", "b", 1.0, 1.0, 1)]
  scores = np.array([[0, 1], [0, 1]], np.float32)
  found = evaluate_in_memory(outcomes, ["a", "b"]).log_loss
  assert found == pytest.approx(sk.log_loss(["a", "b"], scores), rel=1e-6)


def test_pairs_alone_give_the_same_but_for_the_scores() -> None:
  stats = evaluate_in_memory(zip(TRUE, GIVEN, strict=True), LABELS)
  assert stats.rows == STATS.rows
  assert {stats.log_loss, stats.top_3_accuracy, stats.top_3_accuracy_interval, stats.mean_confidence_right} == {None}


@pytest.mark.parametrize("cuts", [[], [0], [250], [1, 2, 499], [0, 0, 250, 250, 500], list(range(500))])
def test_any_cut_and_any_order_give_the_same_bits(cuts: list[int]) -> None:
  parts = [_count(OUTCOMES[start:end]) for start, end in zip([0, *cuts], [*cuts, 500], strict=True)]
  for order in (parts, parts[::-1], sorted(parts, key=lambda part: part.log_loss)):
    assert extract(merge(order), LABELS) == STATS
  nested = merge([merge([]), merge(parts[:2]), LabelCounts(), merge(parts[2:])])
  assert extract(nested, LABELS) == STATS


def test_merging_leaves_what_it_merges_as_it_was() -> None:
  parts = [_count(OUTCOMES[:10]), _count(OUTCOMES[10:20])]
  merge(parts)
  assert parts == [_count(OUTCOMES[:10]), _count(OUTCOMES[10:20])]


@pytest.mark.parametrize("shards", [1, 7, 60])
def test_the_beam_combine_gives_what_its_twin_gives(shards: int) -> None:
  parts = [_count(OUTCOMES[start::shards]) for start in range(shards)]
  results = []
  with beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner"])) as pipeline:
    stats = (
      pipeline
      | beam.Create([LabelCounts(), *parts])
      | beam.Reshuffle()
      | beam.CombineGlobally(merge)
      | beam.Map(extract, LABELS)
    )

    def check(found: list) -> None:
      assert found == [STATS]

    assert_that(stats, check)
    results.append(stats)
  assert results


def test_counts_survive_json() -> None:
  counts = _count(OUTCOMES)
  assert LabelCounts.from_json(json.loads(json.dumps(counts.to_json()))) == counts


def test_nothing_at_all() -> None:
  stats = extract(LabelCounts(), ["a", "b"])
  assert (stats.total, stats.accuracy) == (0, None)
  assert [row.f1 for row in stats.rows] == [None, None]
  assert stats.macro.f1 is None
  assert stats.accuracy_interval == (0.0, 1.0)


def test_an_unknown_or_doubled_label_is_refused() -> None:
  with pytest.raises(ValueError, match="'c'"):
    evaluate_in_memory([("a", "c")], ["a", "b"])
  with pytest.raises(ValueError, match="duplicates"):
    evaluate_in_memory([("a", "a")], ["a", "a"])


def test_most_confused_with() -> None:
  pairs = [("a", "c"), ("a", "b"), ("a", "a"), ("a", "a"), ("a", "a"), ("b", "c"), ("b", "c"), ("b", "a"), ("c", "c")]
  rows = evaluate_in_memory(pairs, ["c", "b", "a"]).rows
  confused = {row.label: (row.most_confused_with, row.most_confused_count) for row in rows}
  # `a` was taken for `b` and `c` once each: the first in the label list.
  assert confused == {"a": ("c", 1), "b": ("c", 2), "c": (None, 0)}


def test_per_label_csv() -> None:
  rows = list(csv.DictReader(io.StringIO(label_stats.per_label_csv(STATS))))
  assert list(rows[0]) == [
    "label",
    "support",
    "predicted",
    "correct",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "most_confused_with",
    "most_confused_count",
    "recall_low",
    "recall_high",
    "precision_low",
    "precision_high",
  ]
  assert [row["label"] for row in rows] == ["zebra", "ant", "fig", "'=cmd", "quince", "mule"]
  never_predicted, nowhere = rows[2], rows[4]
  assert (never_predicted["precision"], never_predicted["recall"], never_predicted["f1"]) == (
    "",
    "0.000000",
    "0.000000",
  )
  assert [nowhere[name] for name in ("support", "accuracy", "precision", "recall", "f1")] == ["0", "", "", "", ""]
  assert [nowhere[name] for name in ("recall_low", "recall_high")] == ["", ""]
  assert float(rows[0]["precision"]) == pytest.approx(STATS.rows[0].precision, abs=5e-7)


def test_per_label_csv_has_the_images_not_trained_on_besides() -> None:
  counts = label_stats.LabelCounts()
  for predicted, trained_on in (("a", True), ("a", True), ("a", False), ("b", False), ("b", False)):
    label_stats.add(counts, label_stats.Outcome("a", predicted), trained_on)
  text = label_stats.per_label_csv(label_stats.extract(counts, ["a", "b"]))
  first, other = csv.DictReader(io.StringIO(text))
  assert list(first)[-6:] == [
    "precision_high",
    "unseen_support",
    "unseen_correct",
    "unseen_recall",
    "unseen_recall_low",
    "unseen_recall_high",
  ]
  assert (first["support"], first["recall"]) == ("5", "0.600000")
  assert (first["unseen_support"], first["unseen_correct"], first["unseen_recall"]) == ("3", "1", "0.333333")
  assert (other["unseen_support"], other["unseen_recall"], other["unseen_recall_low"]) == ("0", "", "")
  assert float(first["unseen_recall_low"]) < 1 / 3 < float(first["unseen_recall_high"])


def test_confusion_csv() -> None:
  rows = list(csv.reader(io.StringIO(label_stats.confusion_csv(STATS))))
  assert rows[0] == ["actual", "zebra", "ant", "fig", "'=cmd", "quince", "mule"]
  assert [row[0] for row in rows[1:]] == rows[0][1:]
  np.testing.assert_array_equal([[int(cell) for cell in row[1:]] for row in rows[1:]], STATS.confusion)


def test_metrics_json_is_json_with_nulls() -> None:
  text = json.dumps(model_to_json(STATS), allow_nan=False)
  metrics = json.loads(text)
  assert metrics["per_label"]["fig"]["precision"] is None
  assert metrics["per_label"]["fig"]["recall"] == 0.0
  assert metrics["per_label"]["fig"]["precision_interval_95"] is None
  low, high = metrics["per_label"]["ant"]["recall_interval_95"]
  assert low < metrics["per_label"]["ant"]["recall"] < high
  assert metrics["labels"] == LABELS
  assert metrics["total"] == 500


def _by_confidence(outcomes: Iterable[tuple[float, bool]]) -> Calibration:
  made = [Outcome("a", "a" if right else "b", confidence, 0.5, 1) for confidence, right in outcomes]
  found = evaluate_in_memory(made, ["a", "b"]).calibration
  assert found is not None
  return found


def test_a_model_that_is_too_sure_of_itself() -> None:
  found = _by_confidence((0.95, right) for right in (True, False, False, False))
  (filled,) = [row for row in found.bins if row.images]
  assert (filled.low, filled.high, filled.images, filled.correct) == (0.9, 1.0, 4, 1)
  assert filled.mean_confidence == pytest.approx(0.95)
  assert found.expected_error == pytest.approx(0.7)


def test_the_calibration_error_is_the_weighted_mean_of_the_gaps() -> None:
  rng = np.random.default_rng(3)
  confidence, right = rng.random(1000), rng.random(1000) < 0.6
  found = _by_confidence(zip(confidence.tolist(), right.tolist(), strict=True))
  place = np.minimum((confidence * 10).astype(int), 9)
  gaps = [
    abs(confidence[place == number].mean() - right[place == number].mean()) * (place == number).sum()
    for number in range(10)
  ]
  assert found.expected_error == pytest.approx(sum(gaps) / 1000, abs=1e-9)
  assert [row.images for row in found.bins] == [(place == number).sum() for number in range(10)]


def test_confidence_of_one_is_in_the_last_bin_and_nothing_is_nothing() -> None:
  assert _by_confidence([(1.0, True)]).bins[9].correct == 1
  empty = _by_confidence([])
  assert empty.expected_error is None
  assert {row.accuracy for row in empty.bins} == {None}
