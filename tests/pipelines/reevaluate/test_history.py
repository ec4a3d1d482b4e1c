"""The life of a history folder: which nights count, what tonight is compared with, who writes, what a kill leaves."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from beam_retrain.pipelines.reevaluate import baseline as baselines
from beam_retrain.pipelines.reevaluate import history
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system.scratch import scratch_folder
from tests.helpers import ROOT
from tests.pipelines.reevaluate.history_suite import (
  FINGERPRINT,
  REQUEST,
  change,
  change_metrics,
  fill_night,
  make_history,
  publish_night,
  tree_of,
)

# Finished nights and damaged ones


def test_a_history_that_is_not_there_yet_has_no_nights(tmp_path):
  assert history.read_nights(str(tmp_path / "new" / "history")) == []
  assert not (tmp_path / "new").exists()


def test_the_finished_nights_are_sorted_and_what_has_no_date_is_no_night(tmp_path):
  folder = make_history(tmp_path, "2026-11-23", "2025-12-31", "2026-11-22")
  for name in ("2026-11-31", "2026-11-1", "20261120", "notes", "\u0662026-11-20"):
    fill_night(folder / name, name)
  finished = history.read_nights(str(folder))
  assert [night.night for night in finished] == ["2025-12-31", "2026-11-22", "2026-11-23"]


_DAMAGES = {
  "it has no COMPLETED": lambda night: (night / "COMPLETED").unlink(),
  "info.json is missing": lambda night: (night / "info.json").unlink(),
  "info.json is not valid JSON": lambda night: (night / "info.json").write_bytes(b"\xff{"),
  "its info.json was not written by": lambda night: change(night / "info.json", stage="evaluate"),
  "metrics.json is missing": lambda night: (night / "metrics.json").unlink(),
  "metrics.json is not valid JSON": lambda night: (night / "metrics.json").write_text('{"night": "2026-'),
  "metrics.json is not a JSON object": lambda night: (night / "metrics.json").write_text("[]"),
  "has no 'predictions_sha256'": lambda night: change(night / "metrics.json", predictions_sha256=None),
  "json is not valid JSON": lambda night: (night / "metrics.json").write_text("[" * 100_000),
  "its 'predictions_sha256' in metrics.json is not a checksum": change_metrics(predictions_sha256=7),
  "its metrics.json has no 'accuracy'": change_metrics(accuracy=None),
  "its 'accuracy' in metrics.json is not a rate": change_metrics(accuracy=94.5),
  "accuracy' in metrics.json is not a rate": change_metrics(accuracy=True),
  "its 'accuracy_interval_95' in metrics.json is not an interval": change_metrics(accuracy_interval_95=[0.5]),
  "_interval_95' in metrics.json is not an interval": change_metrics(accuracy_interval_95="0.5"),
  "_95' in metrics.json is not an interval": change_metrics(accuracy_interval_95=[0.5, None]),
  "its metrics.json has no 'total'": change_metrics(total=None),
  "its 'total' in metrics.json is not a count": change_metrics(total="200"),
  "total' in metrics.json is not a count": change_metrics(total=-1),
  "its metrics.json has no 'labels'": change_metrics(labels=None),
  "its 'labels' in metrics.json is not a list of labels": change_metrics(labels=["7", 1]),
  "labels' in metrics.json is not a list of labels": change_metrics(labels="71"),
  "its 'per_label' in metrics.json is not a table of all labels": change_metrics(labels=["7", "3"]),
  "per_label' in metrics.json is not a table of all labels": change_metrics(per_label={"7": 1, "1": 2}),
  "the recall of '1' in its metrics.json is not a rate": change_metrics(
    per_label={"7": {"recall": 1}, "1": {"recall": "all"}}
  ),
  "the recall of '7' in its metrics.json is not a rate": change_metrics(per_label={"7": {}, "1": {}}),
  "its 'gates' in metrics.json is not a table of gates": change_metrics(gates=[]),
  "a gate in its metrics.json has no state": change_metrics(gates={"min_accuracy": {"state": []}}),
  "its 'night' in metrics.json is not a name": change_metrics(night=20261123),
  "its metrics.json is of the night '2026-11-01'": change_metrics(night="2026-11-01"),
  "it has no predictions.csv": lambda night: (night / "predictions.csv").unlink(),
}


@pytest.mark.parametrize(("why", "damage"), _DAMAGES.items(), ids=_DAMAGES)
def test_a_damaged_night_is_named_and_no_baseline(tmp_path, why, damage, capsys):
  folder = make_history(tmp_path, "2026-11-22", "2026-11-23")
  damage(folder / "2026-11-23")
  finished = history.read_nights(str(folder))
  assert [night.night for night in finished] == ["2026-11-22"]
  baseline = baselines.choose_baseline(str(folder), "2026-11-24", None, ["7", "1"])
  assert baseline.name == "2026-11-22"
  (told,) = capsys.readouterr().err.splitlines()
  assert told.startswith("the night 2026-11-23 is damaged and is not used as the baseline: ")
  assert why in told
  with pytest.raises(InputError, match=r"--baseline 2026-11-23 is damaged, .*: give one of 2026-11-22, the output"):
    baselines.choose_baseline(str(folder), "2026-11-24", "2026-11-23", ["7", "1"])


def test_a_night_of_nothing_is_a_night(tmp_path):
  folder = make_history(tmp_path, "2026-11-23")
  empty = {"7": {"support": 0, "recall": None}}
  change(folder / "2026-11-23" / "metrics.json", labels=["7"], per_label=empty, accuracy_interval_95=[0.0, 1.0])
  metrics = folder / "2026-11-23" / "metrics.json"
  metrics.write_text(metrics.read_text().replace('"accuracy": 0.945', '"accuracy": null'))
  assert [night.night for night in history.read_nights(str(folder))] == ["2026-11-23"]


def test_a_date_that_is_no_folder_is_damaged(tmp_path, capsys):
  folder = make_history(tmp_path, "2026-11-22")
  (folder / "2026-11-23").write_text("")
  assert [night.night for night in history.read_nights(str(folder))] == ["2026-11-22"]
  assert baselines.choose_baseline(str(folder), "2026-11-24", None, ["7", "1"]).name == "2026-11-22"
  assert "the night 2026-11-23 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["photo.jpg", "class/photo.jpg", "info.json", "2026-11-2/x"])
def test_a_folder_of_something_else_is_refused_untouched(tmp_path, name):
  folder = tmp_path / "photos"
  (folder / name).parent.mkdir(parents=True, exist_ok=True)
  (folder / name).write_text("")
  before = tree_of(folder)
  with pytest.raises(InputError, match="but no nights of reevaluate: give a new or empty folder"):
    history.read_nights(str(folder))
  with pytest.raises(InputError, match="but no nights"), history.tonight(str(folder), "2026-11-24", REQUEST):
    pass
  assert tree_of(folder) == before


def test_a_mounted_disk_s_own_folders_and_notes_beside_the_nights_are_no_harm(tmp_path):
  (tmp_path / "lost+found").mkdir()
  (tmp_path / ".snapshot").mkdir()
  (tmp_path / "metrics.prom").touch()  # all nights have been deleted
  publish_night(tmp_path, "2026-11-24")
  (tmp_path / "README.txt").write_text("ours are the nights of the flower model")
  publish_night(tmp_path, "2026-11-25")
  assert [night.night for night in history.read_nights(str(tmp_path))] == ["2026-11-24", "2026-11-25"]


def test_a_remote_history_and_a_file_are_refused(tmp_path):
  with pytest.raises(InputError, match=r"hdfs://host/nights is remote, .*: give a folder of s3:// or gs://"):
    history.read_nights("hdfs://host/nights")
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="is a file: give a folder"):
    history.read_nights(str(tmp_path / "file"))


# Stores


def test_the_stores_are_those_of_the_night_itself_and_of_the_last_before_it(tmp_path):
  folder = make_history(tmp_path, "2026-11-20", "2026-11-21", "2026-11-22", "2026-11-24", "2026-11-25")
  shutil.rmtree(folder / "2026-11-22" / "bottlenecks")
  (folder / "2026-11-21" / "bottlenecks" / "other").mkdir()

  def names(date: str, fingerprint: str = FINGERPRINT) -> list[str]:
    found = history.earlier_stores(str(folder), date, fingerprint)
    assert {Path(path).name for path in found} <= {FINGERPRINT[:12]}
    return [Path(path).parts[-3] for path in found]

  assert names("2026-11-24") == ["2026-11-24", "2026-11-21"]
  assert names("2026-11-23") == ["2026-11-21"]
  assert names("2026-11-19") == []
  assert names("2026-11-24", "f" * 64) == []
  (folder / "2026-11-24" / "bottlenecks" / FINGERPRINT[:12] / "COMPLETED").unlink()
  (folder / "2026-11-21" / "COMPLETED").unlink()
  assert names("2026-11-24") == ["2026-11-20"]


def _with_stores(folder: Path) -> list[str]:
  return [name for name in sorted(os.listdir(folder)) if (folder / name / "bottlenecks").exists()]


def test_the_stores_of_all_but_the_last_nights_are_deleted(tmp_path):
  folder = make_history(tmp_path, "2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24")
  (folder / "2026-11-23" / "COMPLETED").unlink()
  photos = folder / "2026-11-01"
  (photos / "bottlenecks").mkdir(parents=True)
  for date in ("2026-11-20", "2026-11-23", "2026-11-24"):
    (folder / "unfinished" / f"{date}-000000000000").mkdir(parents=True)
  with history.tonight(str(folder), "2026-11-24", REQUEST):
    history.prune_stores(str(folder), 2, "2026-11-24")
    assert _with_stores(folder) == ["2026-11-01", "2026-11-22", "2026-11-24"]
    assert sorted(os.listdir(folder / "unfinished")) == [
      "2026-11-23-000000000000",
      "2026-11-24-000000000000",
      f"2026-11-24-{REQUEST[:12]}",
    ]
    history.prune_stores(str(folder), 0, "2026-11-24")
    assert _with_stores(folder) == ["2026-11-01"]
  assert len(history.read_nights(str(folder))) == 4


def test_no_store_is_deleted_while_another_night_may_read_it(tmp_path):
  folder = make_history(tmp_path, "2026-11-20", "2026-11-21")
  killed, lock = contextlib.ExitStack(), folder / ".lock-2026-11-22"
  temporary = killed.enter_context(scratch_folder(str(lock)))
  with history.tonight(str(folder), "2026-11-24", REQUEST):
    with history.tonight(str(folder), "2026-11-23", REQUEST):
      history.prune_stores(str(folder), 1, "2026-11-24")
      assert _with_stores(folder) == ["2026-11-20", "2026-11-21"]
    lock.write_text("")
    history.prune_stores(str(folder), 1, "2026-11-24")
    assert _with_stores(folder) == ["2026-11-21"]
    assert not os.path.exists(temporary)
    assert not lock.exists()


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
  with pytest.raises(RuntimeError), history.tonight(str(tmp_path), "2026-11-24", REQUEST) as working:  # noqa: PT012
    fill_night(Path(working), "2026-11-24")
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
  publish_night(tmp_path, "2026-11-20", "old")
  with history.tonight(str(tmp_path), "2026-11-22", REQUEST) as working:
    os.rename(tmp_path / "2026-11-20", tmp_path / "unfinished" / "2026-11-20-replaced")
    fill_night(Path(working), "2026-11-22")
  assert [night.night for night in history.read_nights(str(tmp_path))] == ["2026-11-20"]


# Two at once


_HOLDER = """
import sys, tempfile
from beam_retrain.pipelines.reevaluate import history
with history.tonight(sys.argv[1], sys.argv[2], sys.argv[3]) as working:
  open(working + "/half", "w").close()
  tempfile.mkdtemp()
  print("held", flush=True)
  sys.stdin.read()
"""


def test_two_processes_at_one_night_and_a_kill_of_the_first(tmp_path, tmp_path_factory, monkeypatch):
  temporary = tmp_path_factory.mktemp("temporary")
  monkeypatch.setenv("TMPDIR", str(temporary))
  monkeypatch.setattr(tempfile, "tempdir", None)
  holder = subprocess.Popen(
    [sys.executable, "-c", _HOLDER, str(tmp_path), "2026-11-24", REQUEST],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert holder.stdout.readline() == "held\n"
    before = tree_of(tmp_path)
    who = rf" \(`beam-retrain reevaluate`, process {holder.pid} on .* since 20.*\): wait until it ends, or stop it"
    for request in (REQUEST, "0" * 64):
      with (
        pytest.raises(InputError, match=rf"another process is working on the night 2026-11-24 in .*{who}"),
        history.tonight(str(tmp_path), "2026-11-24", request),
      ):
        pass
    assert tree_of(tmp_path) == before
    publish_night(tmp_path, "2026-11-25")
    assert (tmp_path / "unfinished" / f"2026-11-24-{REQUEST[:12]}" / "half").exists()
  finally:
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
  assert [night.night for night in history.read_nights(str(tmp_path))] == ["2026-11-25"]
  assert len(os.listdir(temporary)) == 1
  with history.tonight(str(tmp_path), "2026-11-24", REQUEST) as working:
    assert os.listdir(working) == ["half"]
    fill_night(Path(working), "2026-11-24")
    history.publish(working, str(tmp_path), "2026-11-24")
  assert sorted(os.listdir(tmp_path)) == [".lock", "2026-11-24", "2026-11-25"]
  assert os.listdir(temporary) == []


def test_a_process_that_ends_lets_the_next_one_in(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, "-c", _HOLDER, str(tmp_path), "2026-11-24", REQUEST],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert holder.stdout.readline() == "held\n"
  holder.communicate("")
  assert holder.returncode == 0
  assert sorted(os.listdir(tmp_path)) == [".lock", "unfinished"]
  publish_night(tmp_path, "2026-11-24")


def test_a_lock_that_is_removed_and_made_again_still_keeps_all_but_one_out(tmp_path):
  """Eight threads, each with descriptors of its own, which is all that `flock` goes by."""
  inside, most, faults = 0, 0, []
  start = threading.Barrier(8)

  def work() -> None:
    nonlocal inside, most
    start.wait()
    entered = 0
    while entered < 20:
      try:
        with history.tonight(str(tmp_path), "2026-11-24", REQUEST):
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
