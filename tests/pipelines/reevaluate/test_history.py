"""The life of a history folder: which nights count, what tonight is compared with, who writes, what a kill leaves."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_retrain.pipelines.reevaluate import baseline as baselines
from beam_retrain.pipelines.reevaluate import history, snapshot
from beam_retrain.transforms.core.errors import InputError

_ROOT = Path(__file__).parents[3]
_FINGERPRINT = "0123456789abcdef" * 4
_REQUEST = "fedcba9876543210" * 4
_TODAY = datetime.date(2026, 11, 24)
_PREDICTIONS = b"file_name,actual_digit\na.jpg,7\n"


def _fill(folder: Path, night: str, labels: tuple[str, ...] = ("7", "1"), predictions: bytes = _PREDICTIONS) -> None:
  """Writes what a finished night needs, and a store of bottlenecks."""
  folder.mkdir(parents=True, exist_ok=True)
  metrics = {
    "night": night,
    "total": 200,
    "correct": 189,
    "accuracy": 0.945,
    "accuracy_interval_95": [0.904, 0.969],
    "labels": list(labels),
    "per_label": {label: {"support": 100, "recall": 0.9} for label in labels},
    "verdict": "missed",
    "gates": {"min_accuracy": {"state": "passed", "threshold": 0.9, "value": 0.95}},
    "predictions_sha256": hashlib.sha256(predictions).hexdigest(),
  }
  (folder / "info.json").write_text(json.dumps({"stage": "reevaluate"}))
  (folder / "metrics.json").write_text(json.dumps(metrics))
  (folder / "predictions.csv").write_bytes(predictions)
  store = folder / "bottlenecks" / _FINGERPRINT[:12]
  store.mkdir(parents=True, exist_ok=True)
  for name in ("records.tfrecord", "COMPLETED"):
    (store / name).write_text("")
  (folder / "COMPLETED").write_text("")


def _history(tmp_path: Path, *names: str) -> Path:
  folder = tmp_path / "history"
  for name in names:
    _fill(folder / name, name)
  return folder


def _publish(folder: Path, date: str, mark: str = "", request: str = _REQUEST) -> None:
  with history.tonight(str(folder), date, request) as working:
    _fill(Path(working), date)
    (Path(working) / "mark").write_text(mark)
    assert history.publish(working, str(folder), date) == str(folder / date)


def _tree(folder: Path) -> list[str]:
  return sorted(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names)


def _change(path: Path, **entries: object) -> None:
  found = json.loads(path.read_text())
  for name, value in entries.items():
    if value is None:
      del found[name]
    else:
      found[name] = value
  path.write_text(json.dumps(found))


def _metrics_of(**entries: object) -> Callable[[Path], None]:
  return lambda night: _change(night / "metrics.json", **entries)


# Finished nights and damaged ones


def test_a_history_that_is_not_there_yet_has_no_nights(tmp_path):
  assert history.look(str(tmp_path / "new" / "history")) == ([], [])
  assert not (tmp_path / "new").exists()


def test_the_finished_nights_are_sorted_and_what_has_no_date_is_no_night(tmp_path):
  folder = _history(tmp_path, "2026-11-23", "2025-12-31", "2026-11-22")
  for name in ("2026-11-31", "2026-11-1", "20261120", "notes", "\u0662026-11-20"):
    _fill(folder / name, name)
  finished, damaged = history.look(str(folder))
  expected = [(name, str(folder / name)) for name in ("2025-12-31", "2026-11-22", "2026-11-23")]
  assert [(night.name, night.path) for night in finished] == expected
  assert damaged == []


_DAMAGES = {
  "it has no COMPLETED": lambda night: (night / "COMPLETED").unlink(),
  "info.json is missing": lambda night: (night / "info.json").unlink(),
  "info.json is not JSON": lambda night: (night / "info.json").write_bytes(b"\xff{"),
  "its info.json is not one of": lambda night: _change(night / "info.json", stage="evaluate"),
  "metrics.json is missing": lambda night: (night / "metrics.json").unlink(),
  "metrics.json is not JSON": lambda night: (night / "metrics.json").write_text('{"night": "2026-'),
  "metrics.json is not a JSON object": lambda night: (night / "metrics.json").write_text("[]"),
  "has no 'predictions_sha256'": lambda night: _change(night / "metrics.json", predictions_sha256=None),
  "metrics.json is not JSON that can be read": lambda night: (night / "metrics.json").write_text("[" * 100_000),
  "its 'predictions_sha256' in metrics.json is no checksum": _metrics_of(predictions_sha256=7),
  "its metrics.json has no 'accuracy'": _metrics_of(accuracy=None),
  "its 'accuracy' in metrics.json is no rate": _metrics_of(accuracy=94.5),
  "accuracy' in metrics.json is no rate": _metrics_of(accuracy=True),
  "its 'accuracy_interval_95' in metrics.json is no interval": _metrics_of(accuracy_interval_95=[0.5]),
  "_interval_95' in metrics.json is no interval": _metrics_of(accuracy_interval_95="0.5"),
  "_95' in metrics.json is no interval": _metrics_of(accuracy_interval_95=[0.5, None]),
  "its metrics.json has no 'total'": _metrics_of(total=None),
  "its 'total' in metrics.json is no count": _metrics_of(total="200"),
  "total' in metrics.json is no count": _metrics_of(total=-1),
  "its metrics.json has no 'labels'": _metrics_of(labels=None),
  "its 'labels' in metrics.json is no list of labels": _metrics_of(labels=["7", 1]),
  "labels' in metrics.json is no list of labels": _metrics_of(labels="71"),
  "its 'per_label' in metrics.json is no table of all labels": _metrics_of(labels=["7", "3"]),
  "per_label' in metrics.json is no table of all labels": _metrics_of(per_label={"7": 1, "1": 2}),
  "the recall of '1' in its metrics.json is no rate": _metrics_of(
    per_label={"7": {"recall": 1}, "1": {"recall": "all"}}
  ),
  "the recall of '7' in its metrics.json is no rate": _metrics_of(per_label={"7": {}, "1": {}}),
  "its 'gates' in metrics.json is no table of gates": _metrics_of(gates=[]),
  "a gate in its metrics.json has no state": _metrics_of(gates={"min_accuracy": {"state": []}}),
  "its 'night' in metrics.json is no name": _metrics_of(night=20261123),
  "its metrics.json is of the night '2026-11-01'": _metrics_of(night="2026-11-01"),
  "it has no predictions.csv": lambda night: (night / "predictions.csv").unlink(),
}


@pytest.mark.parametrize(("why", "damage"), _DAMAGES.items(), ids=_DAMAGES)
def test_a_damaged_night_is_named_and_no_baseline(tmp_path, why, damage, capsys):
  folder = _history(tmp_path, "2026-11-22", "2026-11-23")
  damage(folder / "2026-11-23")
  finished, damaged = history.look(str(folder))
  assert [night.name for night in finished] == ["2026-11-22"]
  ((name, told),) = damaged
  assert name == "2026-11-23"
  assert why in told
  baseline = baselines.choose_baseline(str(folder), "2026-11-24", None, ["7", "1"])
  assert baseline.name == "2026-11-22"
  assert [night["night"] for night in snapshot.trend(finished, "2026-11-24")] == ["2026-11-22"]
  assert capsys.readouterr().err == ""  # the caller tells what `look` found
  with pytest.raises(InputError, match=r"--baseline 2026-11-23 is damaged, .*: give one of 2026-11-22, 2026-11-23, "):
    baselines.choose_baseline(str(folder), "2026-11-24", "2026-11-23", ["7", "1"])


def test_a_night_of_nothing_is_a_night(tmp_path):
  folder = _history(tmp_path, "2026-11-23")
  empty = {"7": {"support": 0, "recall": None}}
  _change(folder / "2026-11-23" / "metrics.json", labels=["7"], per_label=empty, accuracy_interval_95=[0.0, 1.0])
  metrics = folder / "2026-11-23" / "metrics.json"
  metrics.write_text(metrics.read_text().replace('"accuracy": 0.945', '"accuracy": null'))
  assert history.look(str(folder))[1] == []


def test_a_date_that_is_no_folder_is_damaged(tmp_path):
  folder = _history(tmp_path, "2026-11-23")
  (folder / "2026-11-22").write_text("")
  assert [night.name for night in history.look(str(folder))[1]] == ["2026-11-22"]


@pytest.mark.parametrize("name", ["photo.jpg", "class/photo.jpg", "info.json", "2026-11-2/x"])
def test_a_folder_of_something_else_is_refused_untouched(tmp_path, name):
  folder = tmp_path / "photos"
  (folder / name).parent.mkdir(parents=True, exist_ok=True)
  (folder / name).write_text("")
  before = _tree(folder)
  with pytest.raises(InputError, match="and no nights of reevaluate: give a new or empty folder"):
    history.look(str(folder))
  with pytest.raises(InputError, match="and no nights"), history.tonight(str(folder), "2026-11-24", _REQUEST):
    pass
  assert _tree(folder) == before


def test_a_mounted_disk_s_own_folders_and_notes_beside_the_nights_are_no_harm(tmp_path):
  (tmp_path / "lost+found").mkdir()
  (tmp_path / ".snapshot").mkdir()
  _publish(tmp_path, "2026-11-24")
  (tmp_path / "README.txt").write_text("ours are the nights of the flower model")
  _publish(tmp_path, "2026-11-25")
  assert [night.name for night in history.look(str(tmp_path))[0]] == ["2026-11-24", "2026-11-25"]


def test_a_remote_history_and_a_file_are_refused(tmp_path):
  with pytest.raises(InputError, match=r"gs://bucket/nights is remote, .*: give a local or mounted folder"):
    history.look("gs://bucket/nights")
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="is a file: give a folder"):
    history.look(str(tmp_path / "file"))


# Which night it is


def test_tonight_is_today_or_the_day_that_was_given(tmp_path):
  finished, _ = history.look(str(_history(tmp_path, "2026-11-23", "2026-11-24")))
  assert snapshot.check_date(None, _TODAY, finished) == "2026-11-24"
  assert snapshot.check_date(None, _TODAY, []) == "2026-11-24"
  assert snapshot.check_date("2026-11-20", _TODAY, finished) == "2026-11-20"


@pytest.mark.parametrize(
  "text", ["", "24.11.2026", "2026-11-31", "2026-11-1", "20261124", "2026-W48-2", "../x", "today"]
)
def test_what_is_no_day_is_refused(text):
  with pytest.raises(InputError, match="is not a day: give it as YYYY-MM-DD, for example 2026-11-24"):
    snapshot.check_date(text, _TODAY, [])


def test_a_clock_that_went_back_is_told_with_both_dates(tmp_path):
  finished, _ = history.look(str(_history(tmp_path, "2026-11-23", "2026-11-25")))
  with pytest.raises(InputError) as refused:
    snapshot.check_date(None, _TODAY, finished)
  assert str(refused.value) == (
    "today is 2026-11-24 by this machine's clock, but there is a finished night of 2026-11-25: set the clock, say with"
    f" --date which night this is, or move {tmp_path / 'history' / '2026-11-25'} away."
  )
  assert snapshot.check_date("2026-11-24", _TODAY, finished) == "2026-11-24"


# What it is compared with


def test_the_baseline_is_the_last_finished_night_before_tonight(tmp_path):
  folder = _history(tmp_path, "2026-11-20", "2026-11-22", "2026-11-24", "2026-11-25")
  found = baselines.choose_baseline(str(folder), "2026-11-24", None, ["1", "7"])
  assert (found.name, found.predictions) == ("2026-11-22", str(folder / "2026-11-22" / "predictions.csv"))
  assert found.labels == ["7", "1"]
  assert baselines.choose_baseline(str(folder), "2026-11-20", None, ["7", "1"]) is None
  assert baselines.choose_baseline(str(folder), "2026-11-24", "none", ["7", "1"]) is None
  assert baselines.choose_baseline(str(tmp_path / "new"), "2026-11-24", None, ["7", "1"]) is None


def test_predictions_that_changed_are_named_and_the_night_before_is_taken(tmp_path, capsys):
  folder = _history(tmp_path, "2026-11-21", "2026-11-22", "2026-11-23")
  for name in ("2026-11-22", "2026-11-23"):
    (folder / name / "predictions.csv").write_bytes(_PREDICTIONS.replace(b"7", b"1"))
  assert history.look(str(folder))[1] == []
  assert baselines.choose_baseline(str(folder), "2026-11-24", None, ["7", "1"]).name == "2026-11-21"
  why = "is damaged and not compared with: its predictions.csv is not the one that was written"
  assert capsys.readouterr().err.splitlines() == [f"the night {name} {why}" for name in ("2026-11-23", "2026-11-22")]
  with pytest.raises(InputError, match=r"2026-11-23 is damaged, its predictions\.csv is not the one"):
    baselines.choose_baseline(str(folder), "2026-11-24", "2026-11-23", ["7", "1"])


def test_a_night_is_given_by_name_or_by_path(tmp_path, monkeypatch):
  folder = _history(tmp_path, "2026-11-20", "2026-11-22", "2026-11-25")
  monkeypatch.chdir(tmp_path)
  for given in ("2026-11-20", str(folder / "2026-11-20"), "history/2026-11-20/"):
    found = baselines.choose_baseline(str(folder), "2026-11-24", given, ["7", "1"])
    assert (found.name, found.predictions) == ("2026-11-20", str(folder / "2026-11-20" / "predictions.csv"))
  assert baselines.choose_baseline(str(folder), "2026-11-24", "2026-11-25", ["7", "1"]).name == "2026-11-25"


def test_a_night_of_another_history_keeps_its_path_as_its_name(tmp_path, monkeypatch):
  folder, other = _history(tmp_path, "2026-11-20"), tmp_path / "other" / "2026-11-22"
  _fill(other, "2026-11-22")
  monkeypatch.chdir(tmp_path)
  for given in (str(other), "other/2026-11-22"):
    found = baselines.choose_baseline(str(folder), "2026-11-24", given, ["7", "1"])
    assert (found.name, found.predictions) == (given, str(other / "predictions.csv"))  # a worker's folder is another


def test_an_evaluation_may_be_given(tmp_path):
  evaluation = tmp_path / "evaluation"
  _fill(evaluation, "")
  _change(evaluation / "info.json", stage="evaluate")
  _change(evaluation / "metrics.json", night=None)
  folder = _history(tmp_path, "2026-11-20")
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
    (_WHOLE[:-21], r"is damaged, its predictions\.csv is not the one that was written: give "),
    (_WHOLE[:-5], r"predictions\.csv: line 4 has 4 cells of 5: the file is damaged"),
    ("", r"predictions\.csv has no column 'file_name'"),
    ("\udcff" + _WHOLE, r"is damaged, its predictions\.csv is not the one"),
  ],
)
def test_the_rows_of_an_earlier_version_s_evaluation_are_counted(tmp_path, predictions, told):
  evaluation = tmp_path / "evaluation"
  _fill(evaluation, "", predictions=predictions.encode(errors="surrogateescape"))
  _change(evaluation / "info.json", stage="evaluate")
  _change(evaluation / "metrics.json", predictions_sha256=None, night=None, total=3)
  given = ("2026-11-24", str(evaluation), ["7", "1"])
  if told is None:
    assert baselines.choose_baseline(str(tmp_path / "history"), *given).name == str(evaluation)
  else:
    with pytest.raises(InputError, match=told):
      baselines.choose_baseline(str(tmp_path / "history"), *given)


def test_an_evaluation_s_predictions_are_those_that_were_written(tmp_path):
  evaluation = tmp_path / "evaluation"
  _fill(evaluation, "")
  _change(evaluation / "info.json", stage="evaluate")
  (evaluation / "predictions.csv").write_bytes(_PREDICTIONS[:-2])
  with pytest.raises(InputError, match=r"is damaged, its predictions\.csv is not the one that was written"):
    baselines.choose_baseline(str(tmp_path / "history"), "2026-11-24", str(evaluation), ["7", "1"])


@pytest.mark.parametrize("given", ["2026-11-21", "nowhere", "../history", "2026-11-24", "history/2026-11-24"])
def test_what_is_no_baseline_is_refused_with_the_nights_there_are(tmp_path, given, monkeypatch):
  folder = _history(tmp_path, "2026-11-20", "2026-11-22", "2026-11-24")
  monkeypatch.chdir(tmp_path)
  choices = "give one of 2026-11-20, 2026-11-22, the output folder of an evaluate, or none"
  with pytest.raises(InputError, match=choices) as refused:
    baselines.choose_baseline(str(folder), "2026-11-24", given, ["7", "1"])
  assert ("is tonight itself" in str(refused.value)) == given.endswith("2026-11-24")


def test_an_empty_baseline_is_told(tmp_path):
  with pytest.raises(InputError, match="--baseline is empty: give one of 2026-11-20, "):
    baselines.choose_baseline(str(_history(tmp_path, "2026-11-20")), "2026-11-24", "", ["7", "1"])


def test_other_labels_are_refused_with_the_difference(tmp_path):
  folder = _history(tmp_path, "2026-11-20")
  for given in (None, "2026-11-20"):
    with pytest.raises(InputError) as refused:
      baselines.choose_baseline(str(folder), "2026-11-24", given, ["7", "9", "8"])
    assert str(refused.value) == (
      "the baseline 2026-11-20 has other labels than the model (only the baseline has '1'; only the model has '9',"
      " '8'): give another --baseline, or --baseline none to begin anew."
    )


def test_a_baseline_that_is_replaced_meanwhile_is_told(tmp_path):
  folder = _history(tmp_path, "2026-11-20")
  found = baselines.choose_baseline(str(folder), "2026-11-24", None, ["7", "1"])
  baselines.check_unchanged(found)
  (folder / "2026-11-20" / "predictions.csv").write_bytes(b"others")
  with pytest.raises(InputError, match="the baseline 2026-11-20 was replaced"):
    baselines.check_unchanged(found)
  shutil.rmtree(folder / "2026-11-20")
  with pytest.raises(InputError, match="the baseline 2026-11-20 was replaced"):
    baselines.check_unchanged(found)


# The trend


def test_the_trend_is_of_the_last_nights_before_tonight(tmp_path):
  folder = _history(tmp_path, *(f"2026-11-{day:02}" for day in range(1, 12)))
  finished, _ = history.look(str(folder))
  for night in finished:
    shutil.rmtree(night.path)  # each is read once, by `look`
  found = snapshot.trend(finished, "2026-11-10", limit=3)
  assert [night["night"] for night in found] == ["2026-11-07", "2026-11-08", "2026-11-09"]
  assert found[0] == {
    "night": "2026-11-07",
    "accuracy": 0.945,
    "accuracy_interval_95": [0.904, 0.969],
    "total": 200,
    "verdict": "passed",
    "per_label": {"7": 0.9, "1": 0.9},
  }
  assert len(snapshot.trend(finished, "2026-11-30")) == 11
  assert snapshot.trend([], "2026-11-30") == []


# Tonight's folder


def test_a_night_is_published_whole_and_nothing_else_is_left(tmp_path):
  folder = tmp_path / "new" / "history"
  with history.tonight(str(folder), "2026-11-24", _REQUEST) as working:
    assert working == str(folder / "unfinished" / "2026-11-24-fedcba987654")
    _fill(Path(working), "2026-11-24")
    assert history.look(str(folder)) == ([], [])
    history.publish(working, str(folder), "2026-11-24")
    assert [night.name for night in history.look(str(folder))[0]] == ["2026-11-24"]
  assert sorted(os.listdir(folder)) == [".lock", "2026-11-24"]


def test_a_killed_night_is_no_night_and_the_same_request_goes_on(tmp_path):
  with history.tonight(str(tmp_path), "2026-11-24", _REQUEST) as working:
    (Path(working) / "half").write_text("")
  assert history.look(str(tmp_path)) == ([], [])
  with history.tonight(str(tmp_path), "2026-11-24", "0" * 64) as working:
    assert os.listdir(working) == []
  with history.tonight(str(tmp_path), "2026-11-24", _REQUEST) as working:
    assert os.listdir(working) == ["half"]


def test_what_is_unfinished_is_not_published(tmp_path):
  with history.tonight(str(tmp_path), "2026-11-24", _REQUEST) as working:
    _fill(Path(working), "2026-11-24")
    (Path(working) / "COMPLETED").unlink()
    with pytest.raises(ValueError, match="is not finished"):
      history.publish(working, str(tmp_path), "2026-11-24")
  assert history.look(str(tmp_path)) == ([], [])


def test_a_rerun_replaces_the_night_and_sweeps_that_date_s_work(tmp_path):
  _publish(tmp_path, "2026-11-23", "other")
  _publish(tmp_path, "2026-11-24", "old")
  (tmp_path / "2026-11-24" / "old file").write_text("")
  for name in ("2026-11-24-000000000000", "2026-11-23-000000000000", "2026-11-24-mine", "mine"):
    (tmp_path / "unfinished" / name).mkdir(parents=True)
    (tmp_path / "unfinished" / name / "x").write_text("")
  _publish(tmp_path, "2026-11-24", "new")
  assert (tmp_path / "2026-11-24" / "mark").read_text() == "new"
  assert not (tmp_path / "2026-11-24" / "old file").exists()
  assert (tmp_path / "2026-11-23" / "mark").read_text() == "other"
  assert sorted(os.listdir(tmp_path / "unfinished")) == ["2026-11-23-000000000000", "2026-11-24-mine", "mine"]


def test_a_damaged_night_is_replaced_too(tmp_path):
  _publish(tmp_path, "2026-11-24", "old")
  (tmp_path / "2026-11-24" / "COMPLETED").unlink()
  (tmp_path / "2026-11-24" / "metrics.json").write_text("")
  _publish(tmp_path, "2026-11-24", "new")
  assert [night.name for night in history.look(str(tmp_path))[0]] == ["2026-11-24"]


def test_a_folder_of_that_date_that_we_did_not_write_is_refused_untouched(tmp_path):
  (tmp_path / "2026-11-24").mkdir()
  (tmp_path / "2026-11-24" / "photo.jpg").write_text("the user's own")
  before = _tree(tmp_path)
  with pytest.raises(InputError, match=r"was not written by `beam-retrain reevaluate`, or its info\.json is damaged"):
    _publish(tmp_path, "2026-11-24")
  assert [path for path in _tree(tmp_path) if not path.endswith("/.lock")] == before


def test_what_somebody_puts_there_while_the_night_runs_is_not_replaced(tmp_path):
  with history.tonight(str(tmp_path), "2026-11-24", _REQUEST) as working:
    _fill(Path(working), "2026-11-24")
    (tmp_path / "2026-11-24").mkdir()
    (tmp_path / "2026-11-24" / "photo.jpg").write_text("the user's own")
    with pytest.raises(InputError, match="move it away"):
      history.publish(working, str(tmp_path), "2026-11-24")
  assert (tmp_path / "2026-11-24" / "photo.jpg").exists()
  assert (Path(working) / "COMPLETED").exists()


def test_a_kill_between_the_two_renames_is_mended_at_the_next_start(tmp_path):
  _publish(tmp_path, "2026-11-24", "old")
  aside = tmp_path / "unfinished" / "2026-11-24-replaced"
  (tmp_path / "unfinished").mkdir()
  os.rename(tmp_path / "2026-11-24", aside)
  assert [night.name for night in history.look(str(tmp_path))[0]] == ["2026-11-24"]
  assert (tmp_path / "2026-11-24" / "mark").read_text() == "old"
  assert not aside.exists()

  os.rename(tmp_path / "2026-11-24", aside)
  with history.tonight(str(tmp_path), "2026-11-25", _REQUEST):
    assert (tmp_path / "2026-11-24" / "mark").read_text() == "old"


def test_a_kill_after_the_second_rename_is_mended_at_the_next_start(tmp_path):
  _publish(tmp_path, "2026-11-24", "new")
  aside = tmp_path / "unfinished" / "2026-11-24-replaced"
  shutil.copytree(tmp_path / "2026-11-24", aside)
  (aside / "mark").write_text("old")
  history.look(str(tmp_path))
  assert (tmp_path / "2026-11-24" / "mark").read_text() == "new"
  assert not aside.exists()


def test_a_rename_that_fails_leaves_the_old_night(tmp_path, monkeypatch):
  _publish(tmp_path, "2026-11-24", "old")
  rename = os.rename

  def full_disk(source: str, target: str) -> None:
    if source.endswith(_REQUEST[:12]):
      raise OSError(28, "No space left on device", target)
    rename(source, target)

  monkeypatch.setattr(os, "rename", full_disk)
  with pytest.raises(OSError, match="No space left"):
    _publish(tmp_path, "2026-11-24", "new")
  assert (tmp_path / "2026-11-24" / "mark").read_text() == "old"
  assert os.listdir(tmp_path / "unfinished") == [f"2026-11-24-{_REQUEST[:12]}"]


# Links


def test_nothing_behind_a_link_is_touched(tmp_path):
  folder, outside = _history(tmp_path, "2026-11-24"), tmp_path / "outside"
  _fill(outside / "2026-11-20", "2026-11-20")
  _fill(outside / "store", "")
  (folder / "2026-11-20").symlink_to(outside / "2026-11-20")
  shutil.rmtree(folder / "2026-11-24" / "bottlenecks" / _FINGERPRINT[:12])
  (folder / "2026-11-24" / "bottlenecks" / _FINGERPRINT[:12]).symlink_to(outside / "store")
  _fill(folder / "2026-11-22", "2026-11-22")
  shutil.rmtree(folder / "2026-11-22" / "bottlenecks")
  (folder / "2026-11-22" / "bottlenecks").symlink_to(outside / "store" / "bottlenecks")
  (folder / "unfinished").mkdir()
  (folder / "unfinished" / "2026-11-24-000000000000").symlink_to(outside)
  before = _tree(outside)
  assert [night.name for night in history.look(str(folder))[0]] == ["2026-11-20", "2026-11-22", "2026-11-24"]
  with history.tonight(str(folder), "2026-11-24", _REQUEST) as working:
    history.prune_stores(str(folder), 0, "2026-11-24")
    _fill(Path(working), "2026-11-24")
    history.publish(working, str(folder), "2026-11-24")
  assert _tree(outside) == before
  assert not (folder / "unfinished").exists()


def test_a_night_that_is_a_link_is_not_replaced(tmp_path):
  folder = _history(tmp_path, "2026-11-23")
  _fill(tmp_path / "outside", "2026-11-24")
  (folder / "2026-11-24").symlink_to(tmp_path / "outside")
  with pytest.raises(InputError, match="move it away"):
    _publish(folder, "2026-11-24")


def test_working_behind_a_link_is_refused(tmp_path):
  folder, outside = _history(tmp_path, "2026-11-23"), tmp_path / "outside"
  outside.mkdir()
  (folder / "unfinished").symlink_to(outside)
  with pytest.raises(InputError, match="unfinished is a link"):
    history.look(str(folder))
  with pytest.raises(InputError, match="unfinished is a link"):
    _publish(folder, "2026-11-24")
  (folder / "unfinished").unlink()
  (folder / "unfinished").mkdir()
  (folder / "unfinished" / f"2026-11-24-{_REQUEST[:12]}").symlink_to(outside)
  with pytest.raises(InputError, match="is a link: remove it"):
    _publish(folder, "2026-11-24")
  assert os.listdir(outside) == []


# Stores


def test_the_stores_are_those_of_the_night_itself_and_of_the_last_before_it(tmp_path):
  folder = _history(tmp_path, "2026-11-20", "2026-11-21", "2026-11-22", "2026-11-24", "2026-11-25")
  shutil.rmtree(folder / "2026-11-22" / "bottlenecks")
  (folder / "2026-11-21" / "bottlenecks" / "other").mkdir()

  def names(date: str, fingerprint: str = _FINGERPRINT) -> list[str]:
    found = snapshot.stores(str(folder), date, fingerprint)
    assert {Path(path).name for path in found} <= {_FINGERPRINT[:12]}
    return [Path(path).parts[-3] for path in found]

  assert names("2026-11-24") == ["2026-11-24", "2026-11-21"]
  assert names("2026-11-23") == ["2026-11-21"]
  assert names("2026-11-19") == []
  assert names("2026-11-24", "f" * 64) == []
  (folder / "2026-11-24" / "bottlenecks" / _FINGERPRINT[:12] / "COMPLETED").unlink()
  (folder / "2026-11-21" / "COMPLETED").unlink()
  assert names("2026-11-24") == ["2026-11-20"]


def _with_stores(folder: Path) -> list[str]:
  return [name for name in sorted(os.listdir(folder)) if (folder / name / "bottlenecks").exists()]


def test_the_stores_of_all_but_the_last_nights_are_deleted(tmp_path):
  folder = _history(tmp_path, "2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24")
  (folder / "2026-11-23" / "COMPLETED").unlink()
  photos = folder / "2026-11-01"
  (photos / "bottlenecks").mkdir(parents=True)
  for date in ("2026-11-20", "2026-11-23", "2026-11-24"):
    (folder / "unfinished" / f"{date}-000000000000").mkdir(parents=True)
  with history.tonight(str(folder), "2026-11-24", _REQUEST):
    history.prune_stores(str(folder), 2, "2026-11-24")
    assert _with_stores(folder) == ["2026-11-01", "2026-11-22", "2026-11-24"]
    assert sorted(os.listdir(folder / "unfinished")) == [
      "2026-11-23-000000000000",
      "2026-11-24-000000000000",
      f"2026-11-24-{_REQUEST[:12]}",
    ]
    history.prune_stores(str(folder), 0, "2026-11-24")
    assert _with_stores(folder) == ["2026-11-01"]
  assert len(history.look(str(folder))[0]) == 4


def test_no_store_is_deleted_while_another_night_may_read_it(tmp_path):
  folder = _history(tmp_path, "2026-11-20", "2026-11-21")
  with history.tonight(str(folder), "2026-11-24", _REQUEST):
    with history.tonight(str(folder), "2026-11-23", _REQUEST):
      history.prune_stores(str(folder), 1, "2026-11-24")
      assert _with_stores(folder) == ["2026-11-20", "2026-11-21"]
    (folder / ".lock-2026-11-22").write_text("")  # of a killed one
    history.prune_stores(str(folder), 1, "2026-11-24")
    assert _with_stores(folder) == ["2026-11-21"]


# What nights that were not published leave


def _work(folder: Path, date: str, request: str, *trunks: str, unfinished: str = "") -> None:
  """Leaves a night's work that was not published: with complete bottlenecks of some trunks, and half of another's."""
  with history.tonight(str(folder), date, request) as working:
    for trunk in filter(None, (*trunks, unfinished)):
      store = Path(working) / "bottlenecks" / trunk
      store.mkdir(parents=True)
      if trunk != unfinished:
        (store / "COMPLETED").touch()


def _left(folder: Path) -> list[str]:
  return [name[5:14] for name in sorted(os.listdir(folder / "unfinished"))]


def test_of_nights_that_are_not_published_the_newest_bottlenecks_are_left(tmp_path):
  for night in ("2026-11-20", "2026-11-21", "2026-11-22", "2026-11-24"):
    _work(tmp_path, night, "a" * 64, "trunk")
  assert _left(tmp_path) == ["11-24-aaa"]
  _work(tmp_path, "2026-11-24", "b" * 64, "trunk")  # the same night, asked otherwise
  assert _left(tmp_path) == ["11-24-bbb"]
  _work(tmp_path, "2026-11-23", "a" * 64, "trunk")  # the later night's may still be of use to that one
  assert _left(tmp_path) == ["11-23-aaa", "11-24-bbb"]


def test_a_night_that_got_nowhere_removes_no_other_s_work(tmp_path):
  _work(tmp_path, "2026-11-21", "a" * 64, "trunk")
  _work(tmp_path, "2026-11-22", "a" * 64, unfinished="trunk")
  _work(tmp_path, "2026-11-23", "a" * 64)
  assert _left(tmp_path) == ["11-21-aaa", "11-22-aaa", "11-23-aaa"]
  with pytest.raises(RuntimeError), history.tonight(str(tmp_path), "2026-11-24", _REQUEST) as working:  # noqa: PT012
    _fill(Path(working), "2026-11-24")
    raise RuntimeError  # as a job does that finds the baseline damaged further down
  assert _left(tmp_path) == ["11-21-aaa", "11-24-fed"]


def test_bottlenecks_of_another_trunk_stay_as_long_as_they_are_the_newest(tmp_path):
  with history.tonight(str(tmp_path), "2026-11-19", "a" * 64):  # until its end nothing is removed
    _work(tmp_path, "2026-11-20", "a" * 64, "other")
    _work(tmp_path, "2026-11-21", "a" * 64, "other", "trunk")
  _work(tmp_path, "2026-11-22", "a" * 64, "trunk")
  assert _left(tmp_path) == ["11-21-aaa", "11-22-aaa"]


def test_what_a_running_night_may_read_stays(tmp_path):
  _work(tmp_path, "2026-11-20", "a" * 64, "trunk")
  with history.tonight(str(tmp_path), "2026-11-21", "a" * 64):
    _work(tmp_path, "2026-11-22", "a" * 64, "trunk")
    assert _left(tmp_path) == ["11-20-aaa", "11-21-aaa", "11-22-aaa"]
  _work(tmp_path, "2026-11-23", "a" * 64, "trunk")
  assert _left(tmp_path) == ["11-23-aaa"]


def test_a_night_that_a_kill_left_set_aside_is_not_taken_for_work(tmp_path):
  _publish(tmp_path, "2026-11-20", "old")
  with history.tonight(str(tmp_path), "2026-11-22", _REQUEST) as working:
    os.rename(tmp_path / "2026-11-20", tmp_path / "unfinished" / "2026-11-20-replaced")
    _fill(Path(working), "2026-11-22")
  assert [night.name for night in history.look(str(tmp_path))[0]] == ["2026-11-20"]


# Two at once


_HOLDER = """
import sys
from beam_retrain.pipelines.reevaluate import baseline as baselines, history, snapshot as nights
with history.tonight(sys.argv[1], sys.argv[2], sys.argv[3]) as working:
  open(working + "/half", "w").close()
  print("held", flush=True)
  sys.stdin.read()
"""


def test_two_processes_at_one_night_and_a_kill_of_the_first(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, "-c", _HOLDER, str(tmp_path), "2026-11-24", _REQUEST],
    cwd=_ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert holder.stdout.readline() == "held\n"
    before = _tree(tmp_path)
    for request in (_REQUEST, "0" * 64):
      with (
        pytest.raises(InputError, match="another process is at work on the night 2026-11-24 in "),
        history.tonight(str(tmp_path), "2026-11-24", request),
      ):
        pass
    assert _tree(tmp_path) == before
    _publish(tmp_path, "2026-11-25")
    assert (tmp_path / "unfinished" / f"2026-11-24-{_REQUEST[:12]}" / "half").exists()
  finally:
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
  assert history.look(str(tmp_path))[1] == []
  with history.tonight(str(tmp_path), "2026-11-24", _REQUEST) as working:
    assert os.listdir(working) == ["half"]
    _fill(Path(working), "2026-11-24")
    history.publish(working, str(tmp_path), "2026-11-24")
  assert sorted(os.listdir(tmp_path)) == [".lock", "2026-11-24", "2026-11-25"]


def test_a_process_that_ends_lets_the_next_one_in(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, "-c", _HOLDER, str(tmp_path), "2026-11-24", _REQUEST],
    cwd=_ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert holder.stdout.readline() == "held\n"
  holder.communicate("")
  assert holder.returncode == 0
  assert sorted(os.listdir(tmp_path)) == [".lock", "unfinished"]
  _publish(tmp_path, "2026-11-24")


def test_a_lock_that_is_removed_and_made_again_still_keeps_all_but_one_out(tmp_path):
  """Eight threads, each with descriptors of its own, which is all that `flock` goes by."""
  inside, most, faults = 0, 0, []
  start = threading.Barrier(8)

  def work() -> None:
    nonlocal inside, most
    start.wait()
    entered = 0
    while entered < 40:
      try:
        with history.tonight(str(tmp_path), "2026-11-24", _REQUEST):
          inside += 1
          most = max(most, inside)
          time.sleep(0)  # lets the others try
          inside -= 1
          entered += 1
      except InputError:
        time.sleep(0.0001)
      except BaseException as error:
        faults.append(error)
        return

  threads = [threading.Thread(target=work) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert faults == []
  assert most == 1
  assert sorted(os.listdir(tmp_path)) == [".lock", "unfinished"]
