"""`--corrections` of the commands: labels corrected by the images' bytes, counted, and no bottleneck computed again."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_retrain.pipelines import bottlenecks, convert, evaluate
from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.corrections import Correction, corrections_csv
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.csv_format import escape_cell, unescape_cell
from beam_retrain.transforms.core.records.schema import decode_bottleneck
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from tests.helpers import file_contents, read_csv, read_json

OTHER = "0123456789abcdef" * 4


def _sha256(path: Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def _unseen(folder: Path) -> list[Path]:
  """Returns the images of a class that the model of `made` was not trained on."""
  split_of = SplitPercentages(30, 10).split_of
  return [path for path in sorted(folder.iterdir()) if split_of(f"{folder.name}/{path.name}") == "testing"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, draw_digits: Callable) -> Path:
  """`data`: 300 digits, one of them twice, and a class `aunt` by mistake; its `corrections.csv`, and a `first.csv`."""
  work = tmp_path_factory.mktemp("corrections")
  draw_digits(work / "data", 300, lambda number, label: f"{label}/{number}.png")
  zebra, mule, yak, bee = (_unseen(work / "data" / label)[0] for label in ("zebra", "mule", "yak", "bee"))
  (zebra.parent / "copy.png").write_bytes(zebra.read_bytes())
  (work / "data" / "aunt").mkdir()
  for command in _unseen(work / "data" / "=cmd")[:2]:
    command.rename(work / "data" / "aunt" / command.name)
  aunts = sorted((work / "data" / "aunt").iterdir())
  decided = {
    zebra: Correction("zebra", "ant", "relabel", "=1+1"),
    mule: Correction("mule", "", "drop"),
    **{aunt: Correction("aunt", "=cmd", "relabel") for aunt in aunts},
    bee: Correction("bee", "bee", "keep"),
    yak.with_name("not-there.png"): Correction("yak", "fox", "relabel"),
    yak: Correction("yak", "", "drop"),
  }
  wrong = (yak, yak.with_name("not-there.png"))
  ids = {
    path: (path.relative_to(work / "data").as_posix(), OTHER if path in wrong else _sha256(path)) for path in decided
  }
  ids[wrong[1]] = (ids[wrong[1]][0], OTHER[::-1])
  (work / "corrections.csv").write_text(corrections_csv({ids[path]: one for path, one in decided.items()}))
  lines = (work / "corrections.csv").read_text().splitlines(keepends=True)
  (work / "first.csv").write_text("".join(line for line in lines if line.startswith(("file_name", "aunt"))))
  return work


def _bottlenecks(made: Any, work: Path, output: Path, *flags: str) -> int:
  given = (f"--input={work / 'data'}", f"--trunk={made.data.parent / 'trunk'}", "--testing_percentage=30")
  return bottlenecks.run([*given, f"--output={output}", *flags])


def _records(output: Path) -> dict[str, tuple[str, int]]:
  """Returns key -> label and class index."""
  found = {}
  for path in (output / "records").glob("*.tfrecord"):
    with path.open("rb") as file:
      for one in map(decode_bottleneck, read_records(file, path.name)):
        found[one.key] = one.label, one.class_index
  return found


@pytest.fixture(scope="module")
def corrected(made: Any, work: Path) -> Path:
  output = work / "corrected"
  assert _bottlenecks(made, work, output, f"--corrections={work / 'corrections.csv'}") == 0
  return output


def test_images_are_relabelled_or_left_out_by_their_bytes(work: Path, corrected: Path) -> None:
  records, labels = _records(corrected), read_json(corrected / "info.json")["labels"]
  assert "aunt" not in labels
  folders = {key: key.split("/")[0] for key in records}
  moved = {key: label for key, (label, _) in records.items() if folders[key] != label}
  assert sorted(moved.values()) == ["=cmd", "=cmd", "ant", "ant"]
  assert moved["zebra/copy.png"] == "ant"
  assert all(labels[index] == label for label, index in records.values())
  assert len(records) == 300


def test_corrections_are_counted_and_those_that_met_no_image_told(work: Path, corrected: Path) -> None:
  stats = read_json(corrected / "stats.json")
  assert stats["corrections"] == {"relabelled": 4, "dropped": 1, "gone": 1, "changed": 1}
  assert (stats["inputs"], stats["outputs"], stats["reasons"], stats["bad_fraction"]) == (301, 300, {"NO_CLASS": 1}, 0)
  header, *unused = read_csv(corrected / "unused_corrections.csv")
  assert header == ["file_name", "sha256", "label_was", "label", "decision", "reason"]
  assert [(row[0].split("/")[1], row[5]) for row in unused] == [
    ("not-there.png", "gone"),
    (unused[1][0][4:], "changed"),
  ]
  (left_out,) = read_csv(corrected / "quarantine.csv")[1:]
  assert left_out[0].startswith("mule/")
  assert left_out[3:] == ["NO_CLASS", "corrected: an image of no class"]
  assert (corrected / "corrections.csv").read_bytes() == (work / "corrections.csv").read_bytes()


def test_no_bottleneck_is_computed_again_for_a_new_label(
  made: Any, work: Path, corrected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  flag = f"--corrections={work / 'corrections.csv'}"
  assert _bottlenecks(made, work, tmp_path / "before", f"--corrections={work / 'first.csv'}") == 0
  assert _bottlenecks(made, work, tmp_path / "reused", f"--reuse={tmp_path / 'before'}", flag) == 0
  capsys.readouterr()
  assert _bottlenecks(made, work, tmp_path / "before", flag) == 0
  captured = capsys.readouterr()
  assert "300 of 300 bottlenecks reused" in captured.out
  assert "corrections.csv: 4; images left out: 1" in captured.out
  assert "1 correction is of an image changed since: see " in captured.err
  for output in (tmp_path / "reused", tmp_path / "before"):
    stats = read_json(output / "stats.json")
    assert stats["bottlenecks"] == {"computed": 0, "reused": 300}
    assert stats["corrections"] == read_json(corrected / "stats.json")["corrections"]
    records, expected = (file_contents(folder / "records") for folder in (output, corrected))
    assert {name: data for name, data in records.items() if name.endswith("tfrecord")} == {
      name: data for name, data in expected.items() if name.endswith("tfrecord")
    }
    assert not (output / ".previous").exists()
  assert main(["verify", f"--folder={tmp_path / 'before'}"]) == 0


@pytest.fixture(scope="module")
def evaluated(made: Any, work: Path) -> Path:
  """All images evaluated with corrections; `reused` of it, from the corrected bottlenecks' vectors."""
  for name, more in (("evaluated", ()), ("reused", (f"--reuse={work / 'corrected'}", "--label_errors"))):
    given = (f"--model={made.model}", f"--input={work / 'data'}", f"--output={work / name}", *more)
    assert evaluate.run([*given, f"--corrections={work / 'corrections.csv'}"]) == 0
  return work / "evaluated"


def _predictions(folder: Path) -> dict[str, dict[str, str]]:
  with (folder / "predictions.csv").open(newline="") as file:
    return {unescape_cell(row["file_name"]): row for row in csv.DictReader(file)}


def test_an_evaluation_says_what_corrections_did_to_the_figures(corrected: Path, evaluated: Path) -> None:
  metrics, rows = read_json(evaluated / "metrics.json"), _predictions(evaluated)
  assert {key: row["actual_digit"] for key, row in rows.items()} == {
    key: escape_cell(label) for key, (label, _) in _records(corrected).items()
  }
  unseen = {key: row for key, row in rows.items() if row["trained_on"] == "False"}
  right = [row for row in unseen.values() if row["prediction_accuracy"] == "True"]
  assert (metrics["unseen"]["correct"], metrics["unseen"]["total"]) == (len(right), len(unseen))
  found, without = metrics["corrections"], metrics["corrections"]["without"]
  assert (found["relabelled"], found["dropped"]) == (4, 1)
  right_before = [key for key, row in unseen.items() if escape_cell(key.split("/")[0]) == row["predicted_digit"]]
  assert (without["correct"], without["total"]) == (len(right_before) + 1, len(unseen) + 1)  # and the image of no class
  assert without["correct"] != len(right)
  assert read_json(evaluated / "stats.json")["corrections"] == read_json(corrected / "stats.json")["corrections"]
  words = (
    r"4 labels corrected and 1 image left out: accuracy [\d.]+.% with the corrections, [\d.]+.% without \(\d+ of \d+\)"
  )
  assert re.search(words, (evaluated / "report.html").read_text())


def test_stored_bottlenecks_get_the_same_figures(made: Any, work: Path, corrected: Path, evaluated: Path) -> None:
  assert (
    read_json(work / "reused" / "metrics.json")["corrections"] == read_json(evaluated / "metrics.json")["corrections"]
  )
  (store,) = (work / "reused" / "bottlenecks").iterdir()
  assert read_json(store / "stats.json")["bottlenecks"]["computed"] == 1  # the image of no class
  given = (f"--model={made.model}", f"--input={corrected}", f"--output={work / 'stored'}", "--split=all")
  assert evaluate.run([*given, f"--corrections={work / 'corrections.csv'}"]) == 0
  metrics = read_json(work / "stored" / "metrics.json")
  assert metrics["corrections"]["relabelled"] == 0
  assert metrics["correct"] == read_json(evaluated / "metrics.json")["correct"]


def test_convert_writes_the_corrected_classes(work: Path, corrected: Path) -> None:
  output = work / "converted"
  given = (f"--input={work / 'data'}", f"--output={output}", "--formats=png,tfrecord")
  assert convert.run([*given, f"--corrections={work / 'corrections.csv'}"]) == 0
  assert read_json(output / "stats.json")["corrections"] == read_json(corrected / "stats.json")["corrections"]
  assert not (output / "aunt").exists()
  written = {label: len(list((output / label).rglob("*.png"))) for label in read_json(output / "info.json")["labels"]}
  found = [label for label, _ in _records(corrected).values()]
  assert written == {label: found.count(label) for label in written}


@pytest.mark.parametrize(
  ("decision", "says"),
  [
    (
      Correction("ant", "unicorn", "relabel"),
      r"line 2: 'unicorn' is none of the labels of .*data \('=cmd', 'ant', 'aunt', ",
    ),
    (None, "cannot be read"),
  ],
)
def test_a_file_that_cannot_be_used_is_a_sentence(
  made: Any, work: Path, tmp_path: Path, decision: Correction | None, says: str
) -> None:
  if decision:
    (tmp_path / "c.csv").write_text(corrections_csv({("ant/1.png", OTHER): decision}))
  flag = f"--corrections={tmp_path / 'c.csv'}"
  with pytest.raises(InputError, match=says):
    _bottlenecks(made, work, tmp_path / "output", flag)
  assert not (tmp_path / "output").exists()


def test_a_night_reuses_the_bottlenecks_of_the_last_under_other_labels(made: Any, work: Path, tmp_path: Path) -> None:
  for date, name in (("2026-11-01", "first.csv"), ("2026-11-02", "corrections.csv")):
    given = (f"--model={made.model}", f"--input={work / 'data'}", f"--history={tmp_path / 'nights'}", f"--date={date}")
    assert main(["reevaluate", *given, f"--corrections={work / name}"]) == 0
  metrics = read_json(tmp_path / "nights" / "2026-11-02" / "metrics.json")
  assert metrics["bottlenecks"] == {"computed": 0, "reused": 301}
  assert [metrics["corrections"][name] for name in ("relabelled", "dropped")] == [4, 1]


def test_run_computes_nothing_again_and_knows_corrections_by_what_they_say(
  made: Any, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  trunk = f"--trunk={made.data.parent / 'trunk'}"
  given = ("run", f"--data={work / 'data'}", trunk, "--testing_percentage=30", f"--output={tmp_path / 'all'}")
  assert main([*given, f"--corrections={work / 'first.csv'}"]) == 0
  capsys.readouterr()
  assert main([*given, f"--corrections={work / 'corrections.csv'}"]) == 0
  assert "300 of 300 bottlenecks reused" in capsys.readouterr().out
  noted = tmp_path / "noted.csv"
  noted.write_text((work / "corrections.csv").read_text().replace("'=1+1", "another note"))
  assert main([*given, f"--corrections={noted}"]) == 0
  assert "bottlenecks: finished and unchanged, kept" in capsys.readouterr().out
