"""The last step: the ledger, what lingers, the quarantine, and whether the folder is declared finished."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import apache_beam as beam
import pytest

from beam_retrain.pipelines.jobs.thread_runner import ThreadRunner
from beam_retrain.transforms.core.errors import user_sentence
from beam_retrain.transforms.core.records.leaks import LeakedImage
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.core.system.locks import claim_of
from beam_retrain.transforms.shards.ledger import CloseLedger, mark_completed, quarantine_csv

_SHARDS = [Shard("training", 0, 2, ()), Shard("training", 1, 2, ()), Shard("testing", 0, 1, ())]
_BAD = Quarantined("training/5/3.jpg", 0, Reason.EMPTY, "0 bytes", "training")


def _report(shard: Shard, quarantined: tuple[Quarantined, ...] = ()) -> ShardReport:
  labels = {"five": 2, "six": 1}
  inputs = 3 + len(quarantined)
  return ShardReport(shard.name(), shard.split, inputs, 3, 10, "ab", "cd", labels, quarantined)


_REPORTS = [_report(_SHARDS[0], (_BAD,)), _report(_SHARDS[1]), _report(_SHARDS[2])]


def _close(output, reports=_REPORTS, shards=_SHARDS, max_bad_fraction=1.0, **options) -> None:
  with beam.Pipeline(ThreadRunner()) as root:
    planned = root | "Plan" >> beam.Create(shards, reshuffle=False)
    reported = root | "Report" >> beam.Create(reports, reshuffle=False)
    _ = (
      (planned, reported)
      | "Close" >> CloseLedger(output=str(output), **options)
      | "MarkCompleted" >> beam.Map(mark_completed, claim_of(str(output)), max_bad_fraction)
    )


def test_a_closed_folder_has_stats_quarantine_and_the_marker(tmp_path):
  _close(tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["COMPLETED", "quarantine.csv", "stats.json"]
  stats = json.loads((tmp_path / "stats.json").read_text())
  assert (stats["inputs"], stats["outputs"], stats["quarantined"]) == (10, 9, 1)
  assert stats["splits"]["training"]["labels"] == {"five": 4, "six": 2}
  assert stats["splits"]["testing"]["shards"] == 1
  assert stats["bad_fraction"] == 0.1
  assert (tmp_path / "quarantine.csv").read_text() == (
    "file_name,split,size_bytes,reason,detail\ntraining/5/3.jpg,training,0,EMPTY,0 bytes\n"
  )


@pytest.mark.parametrize(
  ("reports", "said"),
  [
    (_REPORTS[1:], "1 of 2 training shards were reported"),
    ([*_REPORTS, _REPORTS[0]], "was reported twice"),
    ([dataclasses.replace(_REPORTS[0], inputs=9), *_REPORTS[1:]], "read 9 inputs but wrote 3"),
    ([], "0 of 2 training shards were reported"),
  ],
  ids=["lost", "twice", "unequal", "none"],
)
def test_a_ledger_that_does_not_close_fails_the_job_before_anything_is_written(tmp_path, reports, said):
  with pytest.raises(Exception, match=said) as raised:
    _close(tmp_path, reports)
  assert "the counts do not add up" in (user_sentence(raised.value) or "")
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("accepted", "completed"), [(0.0, False), (0.0999, False), (0.1, True), (1.0, True)])
def test_the_marker_is_written_only_within_what_the_user_accepts(tmp_path, accepted, completed):
  _close(tmp_path, max_bad_fraction=accepted)
  assert (tmp_path / "COMPLETED").exists() == completed
  assert (tmp_path / "stats.json").exists()
  assert "training/5/3.jpg" in (tmp_path / "quarantine.csv").read_text()


@pytest.mark.parametrize("folder", ["", "records", "[records]"])
def test_shards_of_an_earlier_run_do_not_linger_and_other_files_stay(tmp_path, folder):
  records = tmp_path / folder
  (records / ".shards").mkdir(parents=True)
  kept = [report.file for report in _REPORTS]
  strays = [
    "training-00000-of-00003.tfrecord",
    "training-00002-of-00003.tfrecord",
    "validation-00000-of-00001.tfrecord",
  ]
  for name in [*kept, *strays]:
    (records / name).write_bytes(b"shard")
    (records / ".shards" / f"{name}.json").write_text("{}")
  (records / f"{kept[0]}.tmp-0a").touch()
  (records / ".shards" / f"{kept[0]}.json.tmp-0a").touch()
  (records / "one-of-mine.txt").write_text("the user's own")
  _close(tmp_path, shards_folder=str(records) if folder else None)
  ours = {"COMPLETED", "stats.json", "quarantine.csv", "records", "[records]"}
  assert {path.name for path in records.iterdir()} - ours == {*kept, ".shards", "one-of-mine.txt"}
  assert {path.name for path in (records / ".shards").iterdir()} == {f"{name}.json" for name in kept}


def test_the_quarantine_is_sorted_and_safe_to_open_in_a_spreadsheet():
  entries = [
    Quarantined("b.jpg", 7, Reason.TRUNCATED, 'ends early, "here"', "training"),
    Quarantined("=HYPERLINK(1).jpg", 5, Reason.NOT_AN_IMAGE, "-1 is no size", "training"),
    Quarantined("c,d\nnext line.jpg", 0, Reason.EMPTY, "0 bytes", "testing"),
  ]
  text = quarantine_csv(entries)
  assert quarantine_csv(reversed(entries)) == text
  assert list(csv.reader(io.StringIO(text))) == [
    ["file_name", "split", "size_bytes", "reason", "detail"],
    ["c,d\nnext line.jpg", "testing", "0", "EMPTY", "0 bytes"],
    ["'=HYPERLINK(1).jpg", "training", "5", "NOT_AN_IMAGE", "'-1 is no size"],
    ["b.jpg", "training", "7", "TRUNCATED", 'ends early, "here"'],
  ]


def test_without_bad_inputs_the_quarantine_is_its_header():
  assert quarantine_csv([]) == "file_name,split,size_bytes,reason,detail\n"


def test_what_an_audit_found_is_listed_and_counted_in_whatever_order_it_comes(tmp_path):
  leaks = [
    LeakedImage("ab" * 32, f"{number}.png", split, label, ("different_labels",), ("five", "six"))
    for number, (split, label) in enumerate([("training", "six"), ("testing", "five"), ("validation", "five")])
  ]
  for number, order in enumerate((leaks, leaks[::-1], [])):
    output = tmp_path / str(number)
    output.mkdir()
    with beam.Pipeline(ThreadRunner()) as root:
      planned = root | "Plan" >> beam.Create(_SHARDS, reshuffle=False)
      reported = root | "Report" >> beam.Create(_REPORTS, reshuffle=False)
      found = root | "Found" >> beam.Create(order, reshuffle=False)
      _ = (planned, reported) | CloseLedger(output=str(output), leaks=found)
  for name in ("leaks.csv", "stats.json"):
    assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
  assert [line.split(",")[2:] for line in (tmp_path / "0" / "leaks.csv").read_text().splitlines()[1:]] == [
    ["0.png", "training", "six"],
    ["1.png", "testing", "five"],
    ["2.png", "validation", "five"],
  ]
  for number, count in ((0, {"groups": 1, "images": 3}), (2, {"groups": 0, "images": 0})):
    leaks_of = json.loads((tmp_path / str(number) / "stats.json").read_text())["leaks"]
    assert leaks_of == {"different_labels": count, "training_and_testing": {"groups": 0, "images": 0}}
  assert (tmp_path / "2" / "leaks.csv").read_text() == "kind,sha256,file_name,split,label\n"
