"""Nights of real handwritten digits: what is computed, what is told, and what happens when something goes wrong."""

from __future__ import annotations

import csv
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageOps

from beam_retrain.pipelines.reevaluate import command as reevaluate
from beam_retrain.trainer import task
from beam_retrain.transforms.core.errors import InputError
from tests.helpers import ROOT, wait_until_held

FIRST, SECOND, THIRD = "2026-03-01", "2026-03-02", "2026-03-03"


def _rows(path: Path) -> list[dict[str, str]]:
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


def _metrics(night: Path) -> dict[str, Any]:
  return json.loads((night / "metrics.json").read_text())


def _run(made: Any, data: Path, history: Path, date: str, *more: str) -> int:
  flags = [f"--model={made.model}", f"--input={data}", f"--history={history}", f"--date={date}"]
  return reevaluate.run([*flags, *more])


@pytest.fixture(scope="module")
def weak(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A candidate that was hardly trained: wrong more often than chance explains."""
  output = tmp_path_factory.mktemp("weak") / "model"
  assert task.run([f"--input={made.bottlenecks}", f"--output={output}", "--preset=retrain", "--training_steps=1"]) == 0
  return output


@pytest.fixture(scope="module")
def nights(made: Any, weak: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A history of three nights: all digits; the same; then some edited, new and gone, and a candidate."""
  work = tmp_path_factory.mktemp("nights")
  data, history = work / "data", work / "history"
  shutil.copytree(made.data, data)
  gone = sorted((data / "ant").iterdir())[:4]
  kept = [path.rename(work / path.name) for path in gone]
  assert _run(made, data, history, FIRST) == 0
  assert _run(made, data, history, SECOND, "--max_drop=0.001") == 0
  for path in kept[:3]:
    shutil.copy(path, data / "ant" / f"new{path.name}")
  for path in sorted((data / "bee").iterdir())[:6]:
    with Image.open(path) as image:
      negative = ImageOps.invert(image)
    negative.save(path)
  for path in sorted((data / "cow").iterdir())[:5]:
    path.unlink()
  # The same bytes once more under another name.
  shutil.copy(data / "ant" / f"new{kept[0].name}", data / "ant" / "again.png")
  assert _run(made, data, history, THIRD, f"--candidate={weak}", "--max_drop=0.01") == 1
  return history


def test_the_first_night_computes_all_and_the_second_nothing(nights: Path) -> None:
  assert _metrics(nights / FIRST)["bottlenecks"] == {"computed": 1793, "reused": 0}
  assert _metrics(nights / SECOND)["bottlenecks"] == {"computed": 0, "reused": 1793}
  for name in ("per_label.csv", "confusion_matrix.csv", "suspicious_labels.csv"):
    assert (nights / FIRST / name).read_bytes() == (nights / SECOND / name).read_bytes()
  first, second = (_rows(nights / night / "predictions.csv") for night in (FIRST, SECOND))
  for row in first + second:
    del row["Execution time"]
  assert first == second


def test_a_night_says_in_which_kind_the_trunks_ran(made: Any, nights: Path) -> None:
  trunk = json.loads((made.model / "info.json").read_text())["trunk"]
  first, second, third = (_metrics(nights / night) for night in (FIRST, SECOND, THIRD))
  kinds = (first["trunk_kind"], second["trunk_kind"], third["trunk_kind"], third["candidate"]["trunk_kind"])
  # The third night goes by the second's check, of whose images one is another now; the candidate has its own.
  for found, images in zip(kinds, (64, 64, 63, 64), strict=True):
    assert (found["runtime"], found["precision"]) == (trunk["runtime"], trunk["precision"])
    assert found["sample"]["images"] == images
    assert found["sample"]["least_cosine"] > 0.999


def test_a_night_holds_what_is_promised(nights: Path) -> None:
  assert {path.name for path in (nights / THIRD).iterdir()} == {
    "COMPLETED",
    "bottlenecks",
    "candidate",
    "config.toml",
    "confusion_matrix.csv",
    "fixed.csv",
    "gone.csv",
    "info.json",
    "junit.xml",
    "metrics.prom",
    "labels.txt",
    "leaks.csv",
    "metrics.json",
    "new.csv",
    "per_label.csv",
    "predictions.csv",
    "quarantine.csv",
    "regressed.csv",
    "report.html",
    "stats.json",
    "suspicious_labels.csv",
  }
  assert {path.name for path in (nights / THIRD / "candidate").iterdir()} == {
    "confusion_matrix.csv",
    "per_label.csv",
    "predictions.csv",
    "suspicious_labels.csv",
  }
  assert (nights / "metrics.prom").read_bytes() == (nights / THIRD / "metrics.prom").read_bytes()
  assert not (nights / "unfinished").exists()
  assert not (nights / FIRST / "bottlenecks").exists()  # the last two nights keep theirs


def _paired(tonight: Path, baseline: Path) -> dict[str, tuple[bool, bool, bool]]:
  now, then = ({row["file_name"]: row for row in _rows(path)} for path in (tonight, baseline))
  return {
    key: (
      now[key]["prediction_accuracy"] == "True",
      then[key]["prediction_accuracy"] == "True",
      now[key]["sha256"] != then[key]["sha256"],
    )
    for key in now.keys() & then.keys()
  }


def test_what_changed_is_listed_exactly(nights: Path) -> None:
  night = nights / THIRD
  found = _metrics(night)
  # Three of the new ones were never seen, the fourth has the bytes of one of them; six were edited.
  assert found["bottlenecks"] == {"computed": 9, "reused": 1783}
  comparison = found["comparison"]
  assert (comparison["new"], comparison["gone"], comparison["edited"]) == (4, 5, 6)
  assert comparison["baseline"] == SECOND
  assert len(_rows(night / "new.csv")) == 4
  assert all(row["file_name"].startswith("cow/") for row in _rows(night / "gone.csv"))

  pairs = _paired(night / "predictions.csv", nights / SECOND / "predictions.csv")
  of_candidate = _paired(night / "candidate/predictions.csv", night / "predictions.csv")
  for name, index in (("regressed", 1), ("fixed", 0)):
    expected = {("model", key) for key, pair in pairs.items() if pair[index] and not pair[1 - index]}
    expected |= {("candidate", key) for key, pair in of_candidate.items() if pair[index] and not pair[1 - index]}
    rows = _rows(night / f"{name}.csv")
    assert {(row["model"], row["file_name"]) for row in rows} == expected
    assert len(rows) == len(expected)
  assert comparison["regressed"] >= 1  # a negative of a digit is no digit
  assert found["candidate"]["comparison"]["regressed"] > 50


def test_the_candidate_misses_the_gate_and_the_first_line_says_so(nights: Path) -> None:
  found = _metrics(nights / THIRD)
  assert found["verdict"] == "missed"
  assert found["candidate"]["gates"]["max_drop"]["state"] == "missed"
  assert found["gates"]["max_drop"]["state"] == "passed"
  assert found["candidate"]["comparison"]["verdict"] == "worse"
  suites = {suite.get("name"): suite for suite in ElementTree.parse(nights / THIRD / "junit.xml").getroot()}
  assert [suites[name].get("failures") for name in ("model", "candidate")] == ["0", "1"]


def test_the_report_has_the_trend_and_the_changes(nights: Path) -> None:
  report = (nights / THIRD / "report.html").read_text().replace("<wbr>", "")
  assert all(night in report for night in (FIRST, SECOND, THIRD))
  regressed = [row["file_name"] for row in _rows(nights / THIRD / "regressed.csv") if row["model"] == "model"]
  assert all(name in report for name in regressed)


def test_a_rerun_replaces_the_night(made: Any, nights: Path, tmp_path: Path, capsys) -> None:
  history = tmp_path / "history"
  shutil.copytree(nights, history)
  (history / SECOND / "mark").touch()
  capsys.readouterr()
  assert _run(made, made.data, history, SECOND, "--min_accuracy=0.5") == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith("PASSED: accuracy ")
  assert "1,793 bottlenecks reused, 4 computed" in lines[1]
  assert not (history / SECOND / "mark").exists()
  assert _metrics(history / SECOND)["comparison"]["baseline"] == FIRST
  assert _metrics(history / SECOND)["comparison"]["new"] == 4


def test_a_killed_night_leaves_none_behind_and_goes_on(made: Any, tmp_path: Path) -> None:
  history = tmp_path / "history"
  command = [sys.executable, "-m", "beam_retrain.pipelines.reevaluate", f"--model={made.model}", f"--input={made.data}"]
  command += [f"--history={history}", f"--date={FIRST}", "--batch_size=1"]
  killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  deadline = time.monotonic() + 120
  finished: list[Path] = []
  while not finished and time.monotonic() < deadline and killed.poll() is None:
    finished = list(history.glob("unfinished/*/bottlenecks/*/.fresh/.shards/*.json"))
    time.sleep(0.01)
  killed.send_signal(signal.SIGKILL)
  killed.wait()
  assert finished, "it was to be killed in the middle of its work"
  assert [path.name for path in history.iterdir() if not path.name.startswith(".")] == ["unfinished"]
  stamps = {path: path.stat().st_mtime_ns for path in finished}
  kept = tmp_path / "kept"
  shutil.copytree(finished[0].parents[1], kept, copy_function=os.link)

  assert reevaluate.run(command[3:]) == 0
  assert (kept / ".shards" / finished[0].name).stat().st_mtime_ns == stamps[finished[0]]
  assert _metrics(history / FIRST)["total"] == 1797
  assert not (history / "unfinished").exists()


def test_two_runs_of_a_night_at_once_do_not_mix(made: Any, tmp_path: Path) -> None:
  history = tmp_path / "history"
  flags = [f"--model={made.model}", f"--input={made.data}", f"--history={history}", f"--date={FIRST}"]
  command = [sys.executable, "-m", "beam_retrain", "reevaluate", *flags]
  works = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  wait_until_held(history / f".lock-{FIRST}", works)
  with pytest.raises(InputError, match=r"another process is working on the night 2026-03-01 in .*: wait until it ends"):
    reevaluate.run(flags)
  said = works.communicate(timeout=300)[1]
  assert works.returncode == 0, said
  assert _metrics(history / FIRST)["total"] == 1797


def test_bad_images_keep_the_night_from_being_published_until_they_are_accepted(
  made: Any, tmp_path: Path, capsys
) -> None:
  data, history = tmp_path / "data", tmp_path / "history"
  shutil.copytree(made.data, data)
  (data / "ant/empty.png").write_bytes(b"")
  (data / "bee/text.png").write_bytes(b"no image")
  assert _run(made, data, history, FIRST) == 3
  out, error = capsys.readouterr()
  assert out.startswith("NOT PUBLISHED: 2 of 1,799 inputs are bad; ")
  assert "2 of 1799 inputs are bad (1 EMPTY, 1 NOT_AN_IMAGE)" in error
  assert not (history / FIRST).exists()
  (quarantine,) = history.glob(f"unfinished/{FIRST}-*/quarantine.csv")
  assert str(quarantine) in error
  assert [row["file_name"] for row in _rows(quarantine)] == ["ant/empty.png", "bee/text.png"]
  # Nothing is computed twice, be it tonight or tomorrow, while nobody mends them.
  assert _run(made, data, history, SECOND) == 3
  (later,) = history.glob("unfinished/*")  # the earlier work has nothing that this one lacks
  assert later.name.startswith(SECOND)
  assert _metrics(later)["bottlenecks"] == {"computed": 0, "reused": 1797}
  assert _metrics(later)["bad_inputs"] == {"quarantined": 2, "inputs": 1799, "allowed": 0.0, "too_many": True}

  assert _run(made, data, history, FIRST, "--max_bad_fraction=0.01") == 0
  assert _metrics(history / FIRST)["quarantined"]["total"] == 2
  assert not _metrics(history / FIRST)["bad_inputs"]["too_many"]
  assert "ant/empty.png" in (history / FIRST / "report.html").read_text().replace("<wbr>", "")


@pytest.mark.parametrize(
  ("more", "sentence"),
  [
    (["--date=24.11.2026"], "--date '24.11.2026' is not a date"),
    (["--baseline=2026-01-01"], "has no such night: give one of 2026-03-01, 2026-03-02"),
    (["--min_accuracy=98"], "98 is not between 0 and 1"),
    (["--max_dorp=0.1"], "the nearest flag is --max_drop"),
    (["--model="], "--model is empty: give a folder."),
    (["--candidate="], "--candidate is empty: give a folder."),
    (["--input="], "--input is empty: give a folder."),
    (["--history="], "--history is empty: give a folder."),
    (["--reuse="], "--reuse is empty: give a folder."),
    (["--manifest="], "--manifest is empty: give a file."),
    (["--baseline="], "--baseline is empty: give one of 2026-03-01, 2026-03-02"),
  ],
)
def test_what_cannot_be_used_is_told_before_the_work(made: Any, nights: Path, more: list[str], sentence: str) -> None:
  before = sorted(nights.rglob("*"))
  with pytest.raises(InputError, match=re.escape(sentence)):
    _run(made, made.data, nights, THIRD, *more)
  assert sorted(nights.rglob("*")) == before


def test_a_manifest_or_a_head_that_cannot_be_read_leaves_nothing_behind(made: Any, tmp_path: Path) -> None:
  (tmp_path / "manifest.csv").write_text("name,writer\nant/1.png,ann\n")
  with pytest.raises(InputError, match="no column 'file_name'"):
    _run(made, made.data, tmp_path / "history", FIRST, f"--manifest={tmp_path / 'manifest.csv'}")
  model = Path(shutil.copytree(made.model, tmp_path / "model"))
  (model / "head.npz").unlink()
  with pytest.raises(InputError, match=r"head\.npz is missing"):
    _run(made, made.data, tmp_path / "history", FIRST, f"--candidate={model}")
  assert not (tmp_path / "history").exists()


def test_the_help_says_what_the_gates_are_to_a_candidate() -> None:
  told = " ".join(reevaluate.ReevaluateRequest.make_parser().format_help().split())
  assert "every gate applies to it too" in told
  assert "a candidate's drop is measured against the model of tonight" in told


def test_a_clock_that_went_back(made: Any, nights: Path) -> None:
  flags = [f"--model={made.model}", f"--input={made.data}", f"--history={nights}"]
  with pytest.raises(InputError, match=r"today is 2026-03-02 .*there is a finished night of 2026-03-03"):
    reevaluate.execute(reevaluate.ReevaluateRequest.parse(flags), today=lambda: datetime.date(2026, 3, 2))


def test_other_images_are_no_baseline(
  made: Any, nights: Path, tmp_path: Path, draw_digits: Callable[..., None]
) -> None:
  draw_digits(tmp_path / "data", 40, lambda number, label: f"{label}/other{number}.png")
  history = tmp_path / "history"
  shutil.copytree(nights, history)
  with pytest.raises(InputError, match="--baseline"):
    _run(made, tmp_path / "data", history, "2026-03-04")
  assert not (history / "2026-03-04").exists()
  assert _run(made, tmp_path / "data", history, "2026-03-04", "--baseline=none") == 0
  assert _metrics(history / "2026-03-04")["comparison"]["verdict"] == "no baseline"


def test_a_damaged_night_is_named_and_the_one_before_is_taken(made: Any, nights: Path, tmp_path: Path, capsys) -> None:
  history = tmp_path / "history"
  shutil.copytree(nights, history)
  predictions = history / THIRD / "predictions.csv"
  predictions.write_bytes(predictions.read_bytes()[:-200])
  (history / SECOND / "COMPLETED").unlink()
  assert _run(made, made.data, history, "2026-03-04") == 0
  error = capsys.readouterr().err
  assert f"the night {THIRD} is damaged and is not used as the baseline" in error
  assert f"the night {SECOND} is damaged and is not used as the baseline" in error
  assert _metrics(history / "2026-03-04")["comparison"]["baseline"] == FIRST

  # The next night has a sound one before it: what lies further back is no news.
  assert _run(made, made.data, history, "2026-03-05") == 0
  assert "damaged" not in capsys.readouterr().err


def test_a_manifest_row_without_an_image(made: Any, tmp_path: Path) -> None:
  manifest = tmp_path / "manifest.csv"
  manifest.write_text("file_name,writer\nant/1.png,ann\nant/nobody.png,bob\n")
  with pytest.raises(InputError, match=r"ant/nobody\.png"):
    _run(made, made.data, tmp_path / "history", FIRST, f"--manifest={manifest}")
  assert not (tmp_path / "history" / FIRST).exists()


def test_a_candidate_of_other_labels_is_refused(made: Any, trained_model: Path, tmp_path: Path) -> None:
  with pytest.raises(InputError, match=r"labels differ: only one of the models in .* knows '=cmd'"):
    _run(made, made.data, tmp_path / "history", FIRST, f"--candidate={trained_model}")
  assert not (tmp_path / "history").exists()


def test_a_model_of_other_labels_is_refused(made: Any, trained_model: Path, tmp_path: Path) -> None:
  flags = [f"--model={trained_model}", f"--input={made.data}", f"--history={tmp_path / 'history'}"]
  with pytest.raises(InputError, match=r"labels differ: .* has '=cmd', .*the model in .* knows 'black'"):
    reevaluate.run(flags)
  assert not (tmp_path / "history").exists()


def test_a_candidate_with_another_trunk_has_its_own_bottlenecks(
  made: Any, draw_digits: Callable[..., None], tmp_path: Path
) -> None:
  import tensorflow as tf

  from beam_retrain.pipelines import bottlenecks
  from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk

  # float32 [N, 16, 16, 3] -> float32 [N, 256]: every pixel.
  save_trunk(freeze(lambda images: tf.reshape(images[..., :1], [-1, 256]), 16), str(tmp_path / "trunk"))
  data, count = tmp_path / "data", 500
  draw_digits(data, count, lambda number, label: f"{label}/{number}.png")
  flags = [f"--input={data}", f"--output={tmp_path / 'bottlenecks'}", f"--trunk={tmp_path / 'trunk'}"]
  assert bottlenecks.run([*flags, "--testing_percentage=30"]) == 0
  assert task.run([f"--input={tmp_path / 'bottlenecks'}", f"--output={tmp_path / 'model'}"]) == 0
  history = tmp_path / "history"
  assert _run(made, data, history, FIRST) == 0
  (data / "ant/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
  candidate = f"--candidate={tmp_path / 'model'}"
  assert _run(made, data, history, SECOND, candidate, "--max_bad_fraction=0.01") == 0
  found = _metrics(history / SECOND)
  assert found["bottlenecks"] == {"computed": count, "reused": count}
  assert found["quarantined"]["total"] == 1
  assert len(list((history / SECOND / "bottlenecks").iterdir())) == 2
  assert found["total"] == found["candidate"]["total"] == found["candidate"]["comparison"]["paired"] == count
  assert found["candidate"]["accuracy"] > 0.9

  from beam_retrain.pipelines import evaluate

  output = tmp_path / "evaluation"
  flags = [f"--model={tmp_path / 'model'}", f"--input={data}", f"--output={output}", "--max_bad_fraction=0.01"]
  assert evaluate.run(flags) == 0
  alone = {row["file_name"]: row["predicted_digit"] for row in _rows(output / "predictions.csv")}
  beside = {row["file_name"]: row["predicted_digit"] for row in _rows(history / SECOND / "candidate/predictions.csv")}
  assert alone == beside
