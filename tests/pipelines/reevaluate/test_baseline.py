"""Which night it is, what it is compared with, and the trend."""

from __future__ import annotations

import shutil

import pytest

from beam_retrain.pipelines.reevaluate import baseline as baselines
from beam_retrain.pipelines.reevaluate import history
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.metrics.figures import TrendPoint
from tests.pipelines.reevaluate.history_suite import PREDICTIONS, TODAY, change, fill_night, make_history

# Which night it is


def test_tonight_is_today_or_the_day_that_was_given(tmp_path):
  finished = history.read_nights(str(make_history(tmp_path, "2026-11-23", "2026-11-24")))
  assert history.choose_date(None, TODAY, str(tmp_path / "history"), finished) == "2026-11-24"
  assert history.choose_date(None, TODAY, "history", []) == "2026-11-24"
  assert history.choose_date("2026-11-20", TODAY, str(tmp_path / "history"), finished) == "2026-11-20"


@pytest.mark.parametrize(
  "text", ["", "24.11.2026", "2026-11-31", "2026-11-1", "20261124", "2026-W48-2", "../x", "today"]
)
def test_what_is_no_day_is_refused(text):
  with pytest.raises(InputError, match="is not a date: give it as YYYY-MM-DD, for example 2026-11-24"):
    history.choose_date(text, TODAY, "history", [])


def test_a_clock_that_went_back_is_told_with_both_dates(tmp_path):
  finished = history.read_nights(str(make_history(tmp_path, "2026-11-23", "2026-11-25")))
  with pytest.raises(InputError) as refused:
    history.choose_date(None, TODAY, str(tmp_path / "history"), finished)
  assert str(refused.value) == (
    "today is 2026-11-24 by this machine's clock, but there is a finished night of 2026-11-25: set the clock, give"
    f" --date, or move {tmp_path / 'history' / '2026-11-25'} away."
  )
  assert history.choose_date("2026-11-24", TODAY, str(tmp_path / "history"), finished) == "2026-11-24"


# What it is compared with


def test_the_baseline_is_the_last_finished_night_before_tonight(tmp_path):
  folder = make_history(tmp_path, "2026-11-20", "2026-11-22", "2026-11-24", "2026-11-25")
  found = baselines.choose_baseline(str(folder), "2026-11-24", None, ["1", "7"])
  assert (found.name, found.predictions) == ("2026-11-22", str(folder / "2026-11-22" / "predictions.csv"))
  assert found.labels == ["7", "1"]
  assert baselines.choose_baseline(str(folder), "2026-11-20", None, ["7", "1"]) is None
  assert baselines.choose_baseline(str(folder), "2026-11-24", "none", ["7", "1"]) is None
  assert baselines.choose_baseline(str(tmp_path / "new"), "2026-11-24", None, ["7", "1"]) is None


def test_predictions_that_changed_are_named_and_the_night_before_is_taken(tmp_path, capsys):
  folder = make_history(tmp_path, "2026-11-21", "2026-11-22", "2026-11-23")
  for name in ("2026-11-22", "2026-11-23"):
    (folder / name / "predictions.csv").write_bytes(PREDICTIONS.replace(b"7", b"1"))
  assert len(history.read_nights(str(folder))) == 3
  assert baselines.choose_baseline(str(folder), "2026-11-24", None, ["7", "1"]).name == "2026-11-21"
  why = "is damaged and is not used as the baseline: its predictions.csv has changed since it was written"
  assert capsys.readouterr().err.splitlines() == [f"the night {name} {why}" for name in ("2026-11-23", "2026-11-22")]
  with pytest.raises(InputError, match=r"2026-11-23 is damaged, its predictions\.csv has changed"):
    baselines.choose_baseline(str(folder), "2026-11-24", "2026-11-23", ["7", "1"])


def test_a_night_is_given_by_name_or_by_path(tmp_path, monkeypatch):
  folder = make_history(tmp_path, "2026-11-20", "2026-11-22", "2026-11-25")
  monkeypatch.chdir(tmp_path)
  for given in ("2026-11-20", str(folder / "2026-11-20"), "history/2026-11-20/"):
    found = baselines.choose_baseline(str(folder), "2026-11-24", given, ["7", "1"])
    assert (found.name, found.predictions) == ("2026-11-20", str(folder / "2026-11-20" / "predictions.csv"))
  assert baselines.choose_baseline(str(folder), "2026-11-24", "2026-11-25", ["7", "1"]).name == "2026-11-25"


def test_a_night_of_another_history_keeps_its_path_as_its_name(tmp_path, monkeypatch):
  folder, other = make_history(tmp_path, "2026-11-20"), tmp_path / "other" / "2026-11-22"
  fill_night(other, "2026-11-22")
  monkeypatch.chdir(tmp_path)
  for given in (str(other), "other/2026-11-22"):
    found = baselines.choose_baseline(str(folder), "2026-11-24", given, ["7", "1"])
    assert (found.name, found.predictions) == (given, str(other / "predictions.csv"))  # a worker's folder is another


def test_an_evaluation_may_be_given(tmp_path):
  evaluation = tmp_path / "evaluation"
  fill_night(evaluation, "")
  change(evaluation / "info.json", stage="evaluate")
  change(evaluation / "metrics.json", night=None)
  folder = make_history(tmp_path, "2026-11-20")
  found = baselines.choose_baseline(str(folder), "2026-11-24", str(evaluation), ["7", "1"])
  assert (found.name, found.predictions) == (str(evaluation), str(evaluation / "predictions.csv"))
  (evaluation / "predictions.csv").unlink()
  with pytest.raises(InputError, match=r"is damaged, its predictions\.csv is missing"):
    baselines.choose_baseline(str(folder), "2026-11-24", str(evaluation), ["7", "1"])
  (evaluation / "COMPLETED").unlink()
  with pytest.raises(InputError, match="is not finished"):
    baselines.choose_baseline(str(folder), "2026-11-24", str(evaluation), ["7", "1"])


_WHOLE = "file_name,actual_digit,predicted_digit,confidence,sha256\n" + "a.jpg,7,1,99.0000,00\n" * 3


@pytest.mark.parametrize(
  ("predictions", "told"),
  [
    (_WHOLE, None),
    (_WHOLE[:-21], r"is damaged, its predictions\.csv has changed since it was written: give "),
    (_WHOLE[:-5], r"predictions\.csv: line 4 has 4 cells instead of 5: the file is damaged"),
    ("", r"predictions\.csv has no column 'file_name'"),
    ("\udcff" + _WHOLE, r"is damaged, its predictions\.csv has changed"),
  ],
)
def test_the_rows_of_an_earlier_version_s_evaluation_are_counted(tmp_path, predictions, told):
  evaluation = tmp_path / "evaluation"
  fill_night(evaluation, "", predictions=predictions.encode(errors="surrogateescape"))
  change(evaluation / "info.json", stage="evaluate")
  change(evaluation / "metrics.json", predictions_sha256=None, night=None, total=3)
  given = ("2026-11-24", str(evaluation), ["7", "1"])
  if told is None:
    assert baselines.choose_baseline(str(tmp_path / "history"), *given).name == str(evaluation)
  else:
    with pytest.raises(InputError, match=told):
      baselines.choose_baseline(str(tmp_path / "history"), *given)


def test_an_evaluation_s_predictions_are_those_that_were_written(tmp_path):
  evaluation = tmp_path / "evaluation"
  fill_night(evaluation, "")
  change(evaluation / "info.json", stage="evaluate")
  (evaluation / "predictions.csv").write_bytes(PREDICTIONS[:-2])
  with pytest.raises(InputError, match=r"is damaged, its predictions\.csv has changed since it was written"):
    baselines.choose_baseline(str(tmp_path / "history"), "2026-11-24", str(evaluation), ["7", "1"])


@pytest.mark.parametrize("given", ["2026-11-21", "nowhere", "../history", "2026-11-24", "history/2026-11-24"])
def test_what_is_no_baseline_is_refused_with_the_nights_there_are(tmp_path, given, monkeypatch):
  folder = make_history(tmp_path, "2026-11-20", "2026-11-22", "2026-11-24")
  monkeypatch.chdir(tmp_path)
  choices = "give one of 2026-11-20, 2026-11-22, the output folder of an evaluate, or none"
  with pytest.raises(InputError, match=choices) as refused:
    baselines.choose_baseline(str(folder), "2026-11-24", given, ["7", "1"])
  assert ("is tonight itself" in str(refused.value)) == given.endswith("2026-11-24")


def test_an_empty_baseline_is_told(tmp_path):
  with pytest.raises(InputError, match="--baseline is empty: give one of 2026-11-20, "):
    baselines.choose_baseline(str(make_history(tmp_path, "2026-11-20")), "2026-11-24", "", ["7", "1"])


def test_other_labels_are_refused_with_the_difference(tmp_path):
  folder = make_history(tmp_path, "2026-11-20")
  for given in (None, "2026-11-20"):
    with pytest.raises(InputError) as refused:
      baselines.choose_baseline(str(folder), "2026-11-24", given, ["7", "9", "8"])
    assert str(refused.value) == (
      "the baseline 2026-11-20 has other labels than the model (only the baseline has '1'; only the model has '9',"
      " '8'): give another --baseline, or --baseline none to start over."
    )


def test_a_baseline_that_is_replaced_meanwhile_is_told(tmp_path):
  folder = make_history(tmp_path, "2026-11-20")
  found = baselines.choose_baseline(str(folder), "2026-11-24", None, ["7", "1"])
  baselines.check_unchanged(found)
  (folder / "2026-11-20" / "predictions.csv").write_bytes(b"others")
  with pytest.raises(InputError, match=r"^2026-11-20 was replaced while tonight was compared with it"):
    baselines.check_unchanged(found)
  shutil.rmtree(folder / "2026-11-20")
  with pytest.raises(InputError, match=r"^2026-11-20 was replaced while"):
    baselines.check_unchanged(found)


def _miss(night):
  missed = {"min_accuracy": {"state": "missed", "threshold": 0.99, "value": 0.945}}
  change(night / "metrics.json", gates=missed)


def test_the_baseline_is_the_last_night_that_passed(tmp_path, capsys):
  nights = [f"2026-11-{day}" for day in range(19, 24)]
  folder = make_history(tmp_path, *nights)
  for name in (nights[0], nights[2], nights[3]):
    _miss(folder / name)
  change(folder / nights[4] / "metrics.json", gates={"min_accuracy": {"state": "missed"}}, candidate={"gates": {}})
  change(folder / nights[1] / "metrics.json", gates={"min_accuracy": {"state": "none set"}})
  assert baselines.choose_baseline(str(folder), "2026-11-24", None, ["7", "1"]).name == nights[1]
  assert capsys.readouterr().err == (
    f"compared with {nights[1]}, the last night that passed its gates: {', '.join(nights[2:])} did not (--baseline"
    " NIGHT chooses another)\n"
  )
  assert baselines.choose_baseline(str(folder), nights[1], None, ["7", "1"]) is None
  assert capsys.readouterr().err == (
    f"compared with nothing, as no night before {nights[1]} passed its gates: {nights[0]} did not (--baseline NIGHT"
    " chooses another)\n"
  )
  assert baselines.choose_baseline(str(folder), "2026-11-24", nights[3], ["7", "1"]).name == nights[3]
  assert not capsys.readouterr().err


def test_the_gates_of_a_candidate_make_no_bad_night(tmp_path, capsys):
  folder = make_history(tmp_path, "2026-11-22", "2026-11-23")
  candidate = {"gates": {"max_drop": {"state": "missed", "threshold": 0.01, "value": 0.2}}}
  change(folder / "2026-11-23" / "metrics.json", candidate=candidate, verdict="missed")
  assert baselines.choose_baseline(str(folder), "2026-11-24", None, ["7", "1"]).name == "2026-11-23"
  assert not capsys.readouterr().err


def test_a_reference_that_cannot_be_used_is_one_sentence(tmp_path):
  folder = make_history(tmp_path, "2026-11-20", "2026-11-22")
  tonight = (str(folder), "2026-11-24")
  assert baselines.choose_reference(*tonight, None, ["7", "1"]) is None
  assert baselines.choose_reference(*tonight, "2026-11-20", ["7", "1"]).name == "2026-11-20"
  (folder / "2026-11-22" / "predictions.csv").write_bytes(PREDICTIONS[:-2])
  choices = "give one of 2026-11-20, or the output folder of an evaluate."
  for given, sentence in (
    ("2026-11-21", f"--reference 2026-11-21: {folder} has no such night: {choices}"),
    (
      "2026-11-22",
      "--reference 2026-11-22 is damaged, its predictions.csv has changed since it was written: " + choices,
    ),
    ("", f"--reference is empty: {choices}"),
  ):
    with pytest.raises(InputError) as refused:
      baselines.choose_reference(*tonight, given, ["7", "1"])
    assert str(refused.value) == sentence
  with pytest.raises(InputError, match=r"^the reference 2026-11-20 has other labels .*, or leave it out\.$"):
    baselines.choose_reference(*tonight, "2026-11-20", ["7", "8"])


# The trend


def test_the_trend_is_of_the_last_nights_before_tonight(tmp_path):
  nights = history.read_nights(str(make_history(tmp_path, *(f"2026-11-{day:02}" for day in range(1, 12)))))
  found = history.trend(nights, "2026-11-10", limit=3)
  assert [night.night for night in found] == ["2026-11-07", "2026-11-08", "2026-11-09"]
  assert found[0] == TrendPoint("2026-11-07", 0.945, (0.904, 0.969), 200, "passed", {"7": 0.9, "1": 0.9})
  assert len(history.trend(nights, "2026-11-30")) == 11
  assert history.trend([], "2026-11-30") == []
