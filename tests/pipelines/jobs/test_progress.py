"""What is said of a running job: its finished shards and what has been done of those in work."""

import io
import os
import time

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs import progress
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.shards.progress import RecordPlanned, read_planned
from beam_retrain.transforms.shards.work import ShardTask, WorkShards, Written
from beam_retrain.transforms.sources.image_files import ImageFile
from beam_retrain.transforms.sources.records import PickedRecords, RecordsFile


def finish(folder, split: str, index: int, of: int, outputs: int, bad: int = 0, dropped: int = 0) -> None:
  name = f"{split}-{index:05d}-of-{of:05d}.tfrecord"
  reasons = [Reason.EMPTY] * bad + [Reason.LEAKED] * dropped
  quarantined = tuple(Quarantined(str(number), 0, reason, "", split) for number, reason in enumerate(reasons))
  inputs = outputs + len(reasons)
  report = ShardReport(name, split, inputs, outputs, 0, "", "", {"a": outputs}, quarantined)
  (folder / f"{name}.json").write_text(report.to_json())


def work(folder, split: str, index: int, of: int, text: str) -> None:
  (folder / f"{split}-{index:05d}-of-{of:05d}.tfrecord.tmp-live").write_text(text)


def test_adds_up_what_is_finished_and_what_is_done_of_the_rest(tmp_path):
  shards = progress.ShardProgress(str(tmp_path))
  assert shards.look() == (0, 0)
  finish(tmp_path, "training", 0, 12, 1000, bad=24, dropped=3)
  (tmp_path / "training-00001-of-00012.tfrecord.json.tmp-1").write_text("half a report")
  (tmp_path / "training-00002-of-00012.tfrecord.json").write_text("half a report")
  work(tmp_path, "training", 2, 12, "500 2")
  work(tmp_path, "training", 3, 12, "")  # just being written
  assert shards.look() == shards.look() == (1527, 26)
  work(tmp_path, "training", 2, 12, "600 3")
  assert shards.look() == (1627, 27)
  (tmp_path / "training-00002-of-00012.tfrecord.tmp-live").unlink()
  assert shards.look() == (1627, 27)  # its report will be there in a moment
  finish(tmp_path, "training", 2, 12, 1021, bad=3)
  assert shards.look() == (2051, 27)


def test_a_folder_that_is_not_there_yet_is_no_error(tmp_path):
  assert progress.ShardProgress(str(tmp_path / "later")).look() == (0, 0)


def test_plain_lines_where_it_is_no_terminal(tmp_path, monkeypatch):
  reports = tmp_path / ".shards"
  reports.mkdir()
  finish(reports, "training", 0, 3, 500)
  work(reports, "training", 1, 3, "77 0")  # of a run that was killed
  stream = io.StringIO()
  monkeypatch.setattr(progress.sys, "stderr", stream)
  monkeypatch.setattr("beam_retrain.transforms.core.run.progress_line.PLAIN_SECS", 0.02)
  works = [progress.Work("bottlenecks", str(tmp_path)), progress.Work("variants", str(tmp_path / "later"), "variants")]
  with progress.shard_progress(works):
    time.sleep(0.1)
    assert stream.getvalue() == ""  # what an earlier run has finished is no progress of this one
    (reports / "planned.tmp-live").write_text("1500")
    work(reports, "training", 1, 3, "250 1")
    deadline = time.monotonic() + 120
    while not stream.getvalue() and time.monotonic() < deadline:
      time.sleep(0.01)
    work(reports, "training", 1, 3, "500 1")
    while "left" not in stream.getvalue() and time.monotonic() < deadline:
      time.sleep(0.01)
    (tmp_path / "later" / REPORTS_FOLDER).mkdir(parents=True)
    finish(tmp_path / "later" / REPORTS_FOLDER, "training", 0, 3, 200)
    while "variants" not in stream.getvalue() and time.monotonic() < deadline:
      time.sleep(0.01)
  first, second, *_, last = stream.getvalue().splitlines()
  assert first == "bottlenecks: 750 of 1,500 images, 1 bad"
  assert second.startswith("bottlenecks: 1,000 of 1,500 images, ")
  assert second.endswith(" left, 1 bad")
  assert last == "variants: 200 variants"
  assert "\r" not in stream.getvalue()


class _Slow(ShardTask):
  """Waits in the middle of the shard until a file is there that says so; its first image is bad."""

  def __init__(self, go_on: str):
    self._go_on = go_on

  def work(self, shard):
    yield Quarantined("bad", 0, Reason.EMPTY, "", shard.split)
    for number, _ in enumerate(shard.inputs[1:]):
      if number == 2:
        deadline = time.monotonic() + 120
        while not os.path.exists(self._go_on) and time.monotonic() < deadline:
          time.sleep(0.01)
      yield Written("a", b"-")


@pytest.mark.parametrize("flags", [[], ["--direct_num_workers=1", "--direct_running_mode=multi_processing"]])
def test_a_job_is_seen_within_its_shard(tmp_path, monkeypatch, flags):
  """In whichever process the shard is worked."""
  go_on = tmp_path / "go_on"
  output = tmp_path / "out"
  (output / REPORTS_FOLDER).mkdir(parents=True)
  shard = Shard("training", 0, 1, tuple(ImageFile(str(number), "a", "", 0, 0.0) for number in range(6)))
  seen: list[tuple[int, int | None, int]] = []

  class Line(progress.ProgressLine):
    interval_secs = 0.02

    def show(self, count, total=None, bad=0):
      seen.append((count, total, bad))
      go_on.touch()

  monkeypatch.setattr("beam_retrain.transforms.shards.progress._EVERY_SECS", 0.0)
  monkeypatch.setattr(progress, "ProgressLine", Line)
  with (
    progress.shard_progress([progress.Work("work", str(output))], io.StringIO()),
    beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner", *flags])) as root,
  ):
    _ = root | beam.Create([shard]) | WorkShards(_Slow(str(go_on)), output=str(output), request="request")
  assert seen[0][1:] == (6, 1)
  assert 0 < seen[0][0] < 6
  assert [path.name for path in (output / REPORTS_FOLDER).iterdir() if "training" in path.name] == [
    "training-00000-of-00001.tfrecord.json"
  ]


def test_how_many_records_are_planned_is_known_from_the_reports_beside_them(tmp_path):
  (tmp_path / REPORTS_FOLDER).mkdir()
  finish(tmp_path / REPORTS_FOLDER, "training", 0, 2, outputs=20, bad=3)
  first, second = (f"{tmp_path}/training-0000{index}-of-00002.tfrecord" for index in range(2))

  def planned(*inputs) -> int | None:
    output = tmp_path / "out"
    (output / REPORTS_FOLDER).mkdir(parents=True, exist_ok=True)
    with beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner"])) as root:
      shards = [Shard("training", index, 2, (entry,)) for index, entry in enumerate(inputs)]
      _ = root | beam.Create(shards) | RecordPlanned(str(output))
    return read_planned(str(output / REPORTS_FOLDER))

  assert planned(RecordsFile(first, 0, 0.0), PickedRecords(second, 0, 0.0, (1, 5))) == 22
  assert planned(RecordsFile(first, 0, 0.0), RecordsFile(second, 0, 0.0)) is None


def test_silence_is_told_each_time_that_it_has_doubled():
  silence, told = progress.Silence(0.0), {}
  for minute in range(1, 61):
    told[minute] = silence.look(3 if minute >= 15 else 0, minute * 60.0)
  minutes = [minute for minute, text in told.items() if text]
  assert minutes == [10, 25, 35, 55]
  assert told[35].startswith("nothing was finished for 20 minutes: see whether the engine's workers are alive and")


def test_a_job_that_finishes_nothing_is_told_of(tmp_path, monkeypatch):
  monkeypatch.setattr(progress, "SILENT_SECS", 0.05)
  monkeypatch.setattr("beam_retrain.transforms.core.run.progress_line.PLAIN_SECS", 0.02)
  stream, deadline = io.StringIO(), time.monotonic() + 10
  with progress.shard_progress([progress.Work("bottlenecks", str(tmp_path))], stream):
    while not stream.getvalue() and time.monotonic() < deadline:
      time.sleep(0.02)
  assert "beam-retrain: warning: bottlenecks: nothing was finished for 0 minutes: see whether" in stream.getvalue()
