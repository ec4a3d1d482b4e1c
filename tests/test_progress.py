"""What is said of a running job comes from its finished shards alone."""

import io
import time

from pipelines import progress
from transforms.core.quarantine import Quarantined, Reason
from transforms.core.shards import ShardReport


def finish(folder, split: str, index: int, of: int, outputs: int, bad: int = 0) -> None:
  name = f"{split}-{index:05d}-of-{of:05d}.tfrecord"
  quarantined = tuple(Quarantined(str(number), 0, Reason.EMPTY, "", split) for number in range(bad))
  report = ShardReport(name, split, outputs + bad, outputs, 0, "", "", {"a": outputs}, quarantined)
  (folder / f"{name}.json").write_text(report.to_json())


def test_adds_up_what_is_finished_reading_each_report_once(tmp_path):
  shards = progress.ShardProgress(str(tmp_path))
  shards.look()
  assert shards.images == 0
  finish(tmp_path, "training", 0, 12, 1000, bad=24)
  (tmp_path / "training-00001-of-00012.tfrecord.json.tmp-1").write_text("half a report")
  shards.look()
  shards.look()
  assert shards.describe() == "training 1 of 12 shards, 1,024 images"
  finish(tmp_path, "training", 5, 12, 1024)
  finish(tmp_path, "testing", 1, 2, 100)
  shards.look()
  assert shards.describe() == "training 2 of 12, testing 1 of 2 shards, 2,148 images"


def test_a_folder_that_is_not_there_yet_is_no_error(tmp_path):
  shards = progress.ShardProgress(str(tmp_path / "later"))
  shards.look()
  assert shards.images == 0


def test_plain_lines_where_it_is_no_terminal(tmp_path, monkeypatch):
  reports = tmp_path / ".shards"
  reports.mkdir()
  finish(reports, "training", 0, 3, 500)
  stream = io.StringIO()
  monkeypatch.setattr(progress.sys, "stderr", stream)
  monkeypatch.setattr(progress, "_PLAIN_SECS", 0.02)
  with progress.shard_progress("bottlenecks", str(tmp_path)):
    time.sleep(0.1)
    assert stream.getvalue() == ""  # what an earlier run has finished is no progress of this one
    finish(reports, "training", 1, 3, 524)
    deadline = time.monotonic() + 10
    while not stream.getvalue() and time.monotonic() < deadline:
      time.sleep(0.01)
  first = stream.getvalue().splitlines()[0]
  assert first.startswith("bottlenecks: training 2 of 3 shards, 1,024 images, ")
  assert first.endswith(" images/s")
  assert "\r" not in stream.getvalue()
