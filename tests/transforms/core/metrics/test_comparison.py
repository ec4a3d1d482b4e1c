"""Two nights compared: by hand, and random ones against dicts and sets, whole and in pieces."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics import comparison
from beam_retrain.transforms.core.metrics.comparison import (
  Bucket,
  Change,
  Comparison,
  Gone,
  New,
  Plan,
  check,
  compare,
  extract_slices,
  merge,
)
from beam_retrain.transforms.core.metrics.figures import ModelMetrics
from beam_retrain.transforms.core.metrics.metrics_file import model_to_json
from beam_retrain.transforms.core.metrics.predictions import Row
from beam_retrain.transforms.core.metrics.statistics import wilson_interval
from beam_retrain.transforms.core.records.slice_manifest import ManifestRow
from tests.transforms.core.metrics.random_nights import NIGHT, plainly, random_case

MODEL = Plan(("model",), NIGHT)


BOTH = Plan(("model", "candidate"), NIGHT)


SLICED = Plan(("model",), None, "m.csv", ("writer",))


def extract(counts: Comparison, plan: Plan) -> dict[str, dict]:
  """Returns model -> its comparison, as `metrics.json` has it."""
  found = {model: ModelMetrics(comparison=one) for model, one in comparison.extract(counts, plan).items()}
  return {model: model_to_json(metrics)["comparison"] for model, metrics in found.items()}


def _slices(counts: Comparison, plan: Plan, min_slice_size: int, key: str = "slices") -> dict[str, dict]:
  """Returns model -> column -> its slices, as `metrics.json` has them."""
  found = extract_slices(counts, plan, min_slice_size)
  return {model: model_to_json(ModelMetrics(slices=columns))[key] for model, columns in found.items()}


def _beside(counts: Comparison, plan: Plan, min_slice_size: int) -> dict[str, dict]:
  return _slices(counts, plan, min_slice_size, "slices_beside")


def _row(
  key: str, actual: str, predicted: str, confidence: str = "90.0000", sha256: str = "", trained_on: str = ""
) -> Row:
  return Row(key, actual, predicted, confidence, sha256 or f"sha256 of {key}", trained_on)


def test_every_kind_of_image_by_hand():
  tonight = [
    _row("kept right", "5", "5"),
    _row("kept wrong", "5", "6"),
    _row("regressed", "5", "6", "80.0000"),
    _row("fixed", "5", "5", "70.0000", "other bytes"),
    _row("still wrong otherwise", "5", "7", sha256="other bytes"),
    _row("new", "5", "5", "60.0000"),
  ]
  baseline = [
    _row("kept right", "5", "5"),
    _row("kept wrong", "5", "6"),
    _row("regressed", "5", "5", "81.0000"),
    _row("fixed", "5", "9", "71.0000"),
    _row("still wrong otherwise", "5", "6"),
    _row("gone", "3", "4", "61.0000"),
  ]
  counts, changes = compare(Bucket({"model": tonight}, baseline), MODEL)
  assert changes.regressed == [
    Change("regressed", "5", "5", "81.0000", "6", "80.0000", "False", "model", NIGHT, "sha256 of regressed")
  ]
  assert changes.fixed == [Change("fixed", "5", "9", "71.0000", "5", "70.0000", "True", "model", NIGHT, "other bytes")]
  assert changes.new == [New("new", "5", "5", "60.0000", "True", "sha256 of new")]
  assert changes.gone == [Gone("gone", "3", "4", "61.0000", "sha256 of gone")]
  assert extract(counts, MODEL) == {
    "model": {
      "baseline": NIGHT,
      "paired": 5,
      "baseline_correct": 2,
      "correct": 2,
      "regressed": 1,
      "fixed": 1,
      "new": 1,
      "gone": 1,
      "edited": 2,
      "regressed_edited": 0,
      "fixed_edited": 1,
      "changed": 2,
      "changed_correct": 1,
      "changed_baseline_correct": 0,
      "new_correct": 1,
      "gone_correct": 0,
      **dict.fromkeys(
        [f"unseen_{what}" for what in ("paired", "correct", "baseline_correct", "regressed", "fixed")], 0
      ),
      "drop": 0.0,
      "p_value": 1.0,
      "verdict": "no difference shown",
    }
  }


def test_chance_is_asked_of_the_images_not_trained_on():
  """A candidate that was trained on ten images gets them right; on the others it is no better."""
  tonight = [_row(f"learned {number}", "5", "5", trained_on="True") for number in range(10)]
  tonight += [_row("better", "5", "5", trained_on="False"), _row("worse", "5", "6", trained_on="False")]
  baseline = [_row(f"learned {number}", "5", "6", trained_on="False") for number in range(10)]
  baseline += [_row("better", "5", "6", trained_on="False"), _row("worse", "5", "5", trained_on="False")]
  counts, changes = compare(Bucket({"model": tonight}, baseline), MODEL)
  found = extract(counts, MODEL)["model"]
  assert (found["fixed"], found["regressed"], len(changes.fixed)) == (11, 1, 11)
  assert (found["unseen_fixed"], found["unseen_regressed"], found["unseen_paired"]) == (1, 1, 2)
  assert (found["p_value"], found["verdict"], found["drop"]) == (1.0, "no difference shown", 0.0)


def test_the_columns_are_those_that_people_read():
  assert ",".join(Change._fields) == (
    "file_name,actual_digit,baseline_digit,baseline_confidence,predicted_digit,confidence,edited,model,baseline,sha256"
  )
  assert ",".join(New._fields) == "file_name,actual_digit,predicted_digit,confidence,prediction_accuracy,sha256"
  assert ",".join(Gone._fields) == "file_name,actual_digit,baseline_digit,baseline_confidence,sha256"


def test_each_night_is_judged_by_the_label_of_that_night():
  # The model says the same; the image was labelled anew.
  _, changes = compare(Bucket({"model": [_row("a", "6", "5")]}, [_row("a", "5", "5")]), MODEL)
  assert [change.actual_digit for change in changes.regressed] == ["6"]
  _, changes = compare(Bucket({"model": [_row("a", "5", "5")]}, [_row("a", "6", "5")]), MODEL)
  assert [change.baseline_digit for change in changes.fixed] == ["5"]


def test_the_candidate_is_compared_with_the_model_of_tonight():
  bucket = Bucket({"model": [_row("a", "5", "5")], "candidate": [_row("a", "5", "6")]}, [_row("a", "5", "6")])
  counts, changes = compare(bucket, BOTH)
  assert [(change.model, change.baseline) for change in changes.regressed] == [("candidate", "model")]
  assert [(change.model, change.baseline) for change in changes.fixed] == [("model", NIGHT)]
  found = extract(counts, BOTH)
  assert (found["model"]["fixed"], found["model"]["regressed"], found["model"]["drop"]) == (1, 0, -1.0)
  assert (found["candidate"]["fixed"], found["candidate"]["regressed"], found["candidate"]["drop"]) == (0, 1, 1.0)
  assert found["candidate"]["baseline"] == "model"


def test_without_a_baseline_nothing_is_known_but_of_the_candidate():
  plan = Plan(("model", "candidate"))
  bucket = Bucket({"model": [_row("a", "5", "5")], "candidate": [_row("a", "5", "6")]})
  counts, changes = compare(bucket, plan)
  assert (changes.new, changes.gone, len(changes.regressed)) == ([], [], 1)
  found = extract(counts, plan)
  assert found["model"].pop("verdict") == "no baseline"
  assert found["model"].keys() == found["candidate"].keys() - {"verdict"}
  assert set(found["model"].values()) == {None}
  assert (found["candidate"]["paired"], found["candidate"]["new"]) == (1, 0)


def test_the_name_of_a_baseline_is_escaped_in_the_files_alone():
  plan = Plan(("model",), "=cmd")
  counts, changes = compare(Bucket({"model": [_row("'=a", "5", "6")]}, [_row("'=a", "5", "5")]), plan)
  assert (changes.regressed[0].baseline, changes.regressed[0].file_name) == ("'=cmd", "'=a")
  assert extract(counts, plan)["model"]["baseline"] == "=cmd"


def test_lines_are_in_order_whatever_came_first():
  keys = ["b", "a", "c"]
  rows = {model: [_row(key, "5", "6") for key in keys] for model in BOTH.models}
  rows["candidate"] = [_row(key, "5", "5") for key in reversed(keys)]
  before = [_row(key, "5", "5") for key in keys] + [_row("z", "1", "1"), _row("y", "1", "1")]
  _, changes = compare(
    Bucket({**rows, "model": [*rows["model"], _row("x", "1", "1"), _row("w", "1", "1")]}, before), BOTH
  )
  assert [change.file_name for change in changes.regressed] == ["a", "b", "c"]
  assert [change.file_name for change in changes.fixed] == ["a", "b", "c"]
  assert [change.file_name for change in changes.new] == ["w", "x"]
  assert [change.file_name for change in changes.gone] == ["y", "z"]


@pytest.mark.parametrize(
  ("regressed", "fixed", "verdict"),
  [(6, 0, "worse"), (5, 0, "no difference shown"), (0, 6, "better"), (0, 5, "no difference shown"), (40, 20, "worse")],
)
def test_a_change_is_one_when_the_test_says_so(regressed, fixed, verdict):
  counts = Comparison()
  found = {"paired": 100, "regressed": regressed, "fixed": fixed}
  counts.counts.update({("model", "baseline", what): count for what, count in found.items()})
  assert extract(counts, MODEL)["model"]["verdict"] == verdict


def test_nothing_in_common_has_no_drop():
  counts, _ = compare(Bucket({"model": [_row("a", "5", "5")]}, []), MODEL)
  found = extract(counts, MODEL)["model"]
  assert (found["paired"], found["drop"], found["p_value"], found["verdict"]) == (0, None, 1.0, "no difference shown")


def _sliced(*values: str, right: int) -> Comparison:
  """The first `right` images are right."""
  rows = [_row(str(number), "5", "5" if number < right else "6") for number in range(len(values))]
  manifest = [ManifestRow(number, str(number), (value,)) for number, value in enumerate(values) if value]
  return compare(Bucket({"model": rows}, (), manifest), SLICED)[0]


def test_slices_have_figures_and_small_ones_are_pooled_apart():
  counts = _sliced(*["w1"] * 3, *["w2"] * 2, "w3", "", "", right=4)
  (columns,) = _slices(counts, SLICED, 2).values()
  assert list(columns["writer"]) == ["w1", "w2"]
  assert columns["writer"] == {
    "w1": {"pictures": 3, "correct": 3, "accuracy": 1.0, "interval_95": list(wilson_interval(3, 3))},
    "w2": {"pictures": 2, "correct": 1, "accuracy": 0.5, "interval_95": list(wilson_interval(1, 2))},
  }
  small = {"slices": 1, "fewer_than": 2, "pictures": 1, "correct": 0, "accuracy": 0.0}
  assert _beside(counts, SLICED, 2)["model"]["writer"] == {
    "small": {**small, "interval_95": list(wilson_interval(0, 1))},
    "unlisted": {"pictures": 2, "correct": 0, "accuracy": 0.0, "interval_95": list(wilson_interval(0, 2))},
  }
  assert _slices(counts, SLICED, 1)["model"]["writer"].keys() == {"w1", "w2", "w3"}
  assert _beside(counts, SLICED, 1)["model"]["writer"]["small"] is None
  beside = _beside(counts, SLICED, 3)["model"]["writer"]
  assert beside["unlisted"] is not None, "few as they are"
  pooled = beside["small"]
  assert (pooled["slices"], pooled["pictures"], pooled["correct"]) == (2, 3, 1)
  assert _beside(_sliced("w1", right=0), SLICED, 1)["model"]["writer"]["unlisted"] is None


def test_a_value_may_be_any_text():
  pooled, unlisted = "(slices of fewer than 2 images)", "(not in the manifest)"
  counts = _sliced(pooled, pooled, unlisted, unlisted, "small", "", right=3)
  assert {value: row["correct"] for value, row in _slices(counts, SLICED, 2)["model"]["writer"].items()} == {
    pooled: 2,
    unlisted: 1,
  }
  beside = _beside(counts, SLICED, 2)["model"]["writer"]
  assert {kind: row["pictures"] for kind, row in beside.items()} == {"small": 1, "unlisted": 1}


def test_a_column_of_as_many_values_as_images_is_refused(monkeypatch):
  monkeypatch.setattr(comparison, "MAX_SLICES", 3)
  assert merge([_sliced("a", "b", right=0), _sliced("b", "c", right=0)]).slices
  with pytest.raises(InputError, match="column 'writer' of the manifest has more than 3 different values: remove"):
    merge([_sliced("a", "b", right=0), _sliced("c", "d", right=0)])


def test_rows_of_the_manifest_without_an_image_are_counted_and_the_first_is_named():
  def of(*numbers: int) -> Comparison:
    manifest = [ManifestRow(number, f"stray{number}", ("w",)) for number in numbers]
    return compare(Bucket({"model": [_row("a", "5", "5")]}, (), manifest), SLICED)[0]

  with pytest.raises(InputError, match=r"m.csv: 3 rows have no evaluated image; the first is 'stray4' in"):
    check(merge([of(10, 4), of(9)]), SLICED)
  with pytest.raises(
    InputError, match=r"m.csv: 1 row has no evaluated image.* 'stray7' in line 7: remove such rows, or"
  ):
    check(merge([of(), of(7)]), SLICED)
  check(of(), SLICED)


def test_a_row_of_the_manifest_for_an_image_that_could_not_be_used_is_no_error():
  bucket = Bucket({"model": [_row("a", "5", "5")]}, (), [ManifestRow(2, "bad", ("w",))], ["bad"])
  counts, _ = compare(bucket, SLICED)
  check(counts, SLICED)
  assert _slices(counts, SLICED, 1) == {"model": {"writer": {}}}
  assert _beside(counts, SLICED, 1)["model"]["writer"]["unlisted"]["pictures"] == 1


def test_a_baseline_of_other_images_is_told():
  counts = merge(
    compare(bucket, MODEL)[0]
    for bucket in (
      Bucket({"model": [_row("a", "5", "5"), _row("b", "5", "5")]}, []),
      Bucket({"model": []}, [_row("c", "5", "5")]),
    )
  )
  with pytest.raises(InputError, match=r"the baseline 2026-11-23 has none of tonight's 2 images \(it has 1 others\)"):
    check(counts, MODEL)
  one_in_common = compare(Bucket({"model": [_row("d", "5", "5")]}, [_row("d", "5", "5")]), MODEL)[0]
  check(merge([counts, one_in_common]), MODEL)
  # No image at all, in one night or the other, is no other image.
  check(compare(Bucket({"model": []}, [_row("c", "5", "5")]), MODEL)[0], MODEL)
  check(compare(Bucket({"model": [_row("c", "5", "5")]}, []), MODEL)[0], MODEL)


def test_a_name_comes_once_in_each_night():
  twice = [_row("a", "5", "5"), _row("a", "5", "6")]
  with pytest.raises(InputError, match="tonight has more than one image named 'a'"):
    compare(Bucket({"model": twice}), MODEL)
  with pytest.raises(InputError, match="the baseline 2026-11-23 has more than one image named 'a'"):
    compare(Bucket({"model": []}, twice), MODEL)


@pytest.mark.parametrize("round_of_100", range(4))
def test_random_nights_whole_and_in_pieces(round_of_100):
  kinds: set[str] = set()
  for seed in range(100 * round_of_100, 100 * round_of_100 + 100):
    bucket, plan, min_slice_size = random_case(seed)
    figures, slices, beside, lines = plainly(bucket, plan, min_slice_size)
    whole, changes = compare(bucket, plan)
    check(whole, plan)
    assert extract(whole, plan) == figures
    assert _slices(whole, plan, min_slice_size) == (slices if plan.manifest else {m: {} for m in plan.models})
    assert _beside(whole, plan, min_slice_size) == beside
    assert {kind: [list(change) for change in listed] for kind, listed in changes._asdict().items()} == lines
    kinds |= {kind for kind, listed in lines.items() if listed} | {found["verdict"] for found in figures.values()}

    picks = random.Random(seed)
    pieces = [compare(piece, plan) for piece in _cut(bucket, picks)]
    picks.shuffle(pieces)
    at = picks.randint(0, len(pieces))
    halves = [merge(counts for counts, _ in half) for half in (pieces[:at], pieces[at:])]
    merged = merge([merge([]), *halves])
    assert merged == merge([whole])
    assert json.dumps(extract(merged, plan)) == json.dumps(extract(whole, plan))
    for figures_of in (_slices, _beside):
      in_pieces, at_once = (json.dumps(figures_of(counts, plan, min_slice_size)) for counts in (merged, whole))
      assert in_pieces == at_once
    for kind, listed in changes._asdict().items():
      assert sorted(change for _, found in pieces for change in getattr(found, kind)) == sorted(listed)
  assert kinds == {"regressed", "fixed", "new", "gone", "worse", "better", "no difference shown", "no baseline"}


def _cut(bucket: Bucket, picks: random.Random) -> list[Bucket]:
  """Cuts a bucket into up to five by key, some of them maybe empty, rows in another order."""
  number = picks.randint(1, 5)
  place: dict[str, int] = {}

  def part(rows, at):
    found = [row for row in rows if place.setdefault(row.key, picks.randrange(number)) == at]
    picks.shuffle(found)
    return found

  return [
    Bucket(
      {model: part(rows, at) for model, rows in bucket.tonight.items()},
      part(bucket.baseline, at),
      part(bucket.manifest, at),
    )
    for at in range(number)
  ]


@pytest.mark.parametrize("seed", range(20))
def test_a_reference_is_counted_as_a_baseline_is(seed):
  bucket, plan, _ = random_case(seed)
  rows = bucket.baseline or bucket.tonight["model"]
  both = bucket._replace(baseline=rows, reference=rows)
  plan = dataclasses.replace(plan, baseline="2026-01-01", reference="2026-01-01")
  counts, changes = compare(both, plan)
  reference = comparison.extract(counts, plan, comparison.REFERENCE)
  assert reference["model"] == comparison.extract(counts, plan)["model"]
  assert reference.keys() == set(plan.models)
  assert changes == compare(both, dataclasses.replace(plan, reference=None))[1]  # the files are of the baseline


def test_a_reference_of_other_images_is_told():
  bucket = Bucket({"model": [_row("a", "5", "5")]}, reference=[_row("b", "5", "5")])
  plan = Plan(("model",), reference=NIGHT)
  with pytest.raises(
    InputError, match=r"the reference 2026-11-23 has none of .*: give another --reference, or another"
  ):
    check(compare(bucket, plan)[0], plan)
