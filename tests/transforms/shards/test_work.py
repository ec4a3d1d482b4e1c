"""The work on shards: the same bytes for any number of workers, and a killed run that resumes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.jobs.thread_runner import ThreadRunner
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER
from beam_retrain.transforms.core.records.shards import Shard, ShardReport
from beam_retrain.transforms.shards.progress import METRICS_NAMESPACE
from beam_retrain.transforms.shards.work import ShardTask, WorkShards, Written, read_report
from beam_retrain.transforms.sources.image_files import ImageFile


class _CopyFiles(ShardTask):
  """Copies each file into its shard; an empty one is quarantined. Fails in the middle of shard `fails`."""

  def __init__(self, fails: int | None = None):
    self._fails = fails

  def setup(self) -> None:
    self._copied = 0

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    for number, image in enumerate(shard.inputs):
      if shard.index == self._fails and number == 2:
        raise RuntimeError("killed")
      payload = Path(image.path).read_bytes()
      self._copied += 1
      if payload:
        yield Written(image.label, payload)
      else:
        yield Quarantined(image.key, 0, Reason.EMPTY, "0 bytes", shard.split)

  def extra(self) -> dict[str, Any]:
    return {"copied": self._copied}


class _CountFiles(_CopyFiles):
  writes_file = False

  def work(self, shard: Shard) -> Iterator[Written | Quarantined]:
    for item in super().work(shard):
      yield item._replace(payload=b"") if isinstance(item, Written) else item


@pytest.fixture
def shards(tmp_path) -> list[Shard]:
  """4 shards of 5 files each, the last file of each empty."""
  made = []
  for index in range(4):
    inputs = []
    for number in range(5):
      path = tmp_path / "in" / f"{index}_{number}.jpg"
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(f"<{index}.{number}>".encode() * 1000 if number < 4 else b"")
      inputs.append(ImageFile(path.name, "even" if number % 2 == 0 else "odd", str(path), path.stat().st_size, 1.0))
    made.append(Shard("training", index, 4, tuple(inputs)))
  return made


@pytest.fixture
def output(tmp_path) -> Path:
  (tmp_path / "out" / REPORTS_FOLDER).mkdir(parents=True)
  return tmp_path / "out"


def _run(shards, output, task=None, request="request") -> dict[str, int]:
  """Works the shards and returns the counters."""
  pipeline = beam.Pipeline(ThreadRunner())
  _ = (
    pipeline
    | "Create" >> beam.Create(shards)
    | "Work" >> WorkShards(task or _CopyFiles(), output=str(output), request=request)
    # Reports of a job that went well are the ones on disk.
    | "Compare" >> beam.Map(_check_report, str(output))
  )
  result = pipeline.run()
  result.wait_until_finish()
  counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(METRICS_NAMESPACE))["counters"]
  return {counter.key.metric.name: counter.committed for counter in counters if counter.committed}


def _check_report(report: ShardReport, output: str) -> None:
  on_disk = Path(output, REPORTS_FOLDER, f"{report.file}.json").read_text()
  if on_disk != report.to_json():
    raise AssertionError(f"{on_disk} is not {report}")


def _contents(output: Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}


def _reports(output: Path) -> dict[str, dict[str, Any]]:
  return {path.name: json.loads(path.read_text()) for path in (output / REPORTS_FOLDER).glob("*.json")}


def test_a_shard_s_file_is_its_records_in_order_and_its_report_says_so(shards, output):
  counters = _run(shards, output)
  assert counters == {"shards_worked": 4, "records_written": 16, "inputs_quarantined": 4}
  contents = _contents(output)
  assert sorted(contents) == [f"training-0000{i}-of-00004.tfrecord" for i in range(4)]
  expected = b"".join(f"<2.{number}>".encode() * 1000 for number in range(4))
  assert contents["training-00002-of-00004.tfrecord"] == expected

  report = _reports(output)["training-00002-of-00004.tfrecord.json"]
  assert report.pop("extra")["copied"] >= 5
  assert report == {
    "file": "training-00002-of-00004.tfrecord",
    "split": "training",
    "inputs": 5,
    "outputs": 4,
    "size_bytes": len(expected),
    "sha256": hashlib.sha256(expected).hexdigest(),
    "digest": shards[2].digest("request"),
    "labels": {"even": 2, "odd": 2},
    "quarantined": [{"key": "2_4.jpg", "size_bytes": 0, "reason": "EMPTY", "detail": "0 bytes", "split": "training"}],
  }


def test_in_any_order_shards_become_the_same_bytes(shards, output, tmp_path):
  _run(shards, output)
  other = tmp_path / "other"
  (other / REPORTS_FOLDER).mkdir(parents=True)
  _run(list(reversed(shards)), other)
  assert len(_contents(output)) == 4
  assert _contents(other) == _contents(output)
  # The extra counts what one worker had done by then: here the one thing that depends on the workers.
  assert _without_extra(_reports(other)) == _without_extra(_reports(output))


def _without_extra(reports: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
  return {name: {key: value for key, value in report.items() if key != "extra"} for name, report in reports.items()}


def test_a_killed_run_goes_on_and_computes_only_the_rest(shards, output, tmp_path):
  with pytest.raises(RuntimeError, match="killed"):
    _run(shards, output, _CopyFiles(fails=2))
  finished = set(_reports(output))
  assert 1 <= len(finished) <= 3
  # The shard that failed half-way has left neither file nor report nor temporary file.
  assert {f"{name}.json" for name in _contents(output)} == finished

  counters = _run(shards, output)
  assert counters["shards_kept"] == len(finished)
  assert counters["shards_worked"] == 4 - len(finished)

  whole = tmp_path / "whole"
  (whole / REPORTS_FOLDER).mkdir(parents=True)
  _run(shards, whole)
  assert _contents(output) == _contents(whole)


def test_a_finished_run_is_kept_whole(shards, output):
  _run(shards, output)
  before = {path: path.stat().st_mtime_ns for path in output.rglob("*.*")}
  assert _run(shards, output) == {"shards_kept": 4}
  assert {path: path.stat().st_mtime_ns for path in output.rglob("*.*")} == before


_FIRST = "training-00000-of-00004.tfrecord"


def _flip_one_bit(output: Path) -> None:
  data = bytearray((output / _FIRST).read_bytes())
  data[7] ^= 1
  (output / _FIRST).write_bytes(data)


def _cut(output: Path) -> None:
  os.truncate(output / _FIRST, 100)


def _lose_file(output: Path) -> None:
  (output / _FIRST).unlink()


def _lose_report(output: Path) -> None:
  (output / REPORTS_FOLDER / f"{_FIRST}.json").unlink()


def _spoil_report(output: Path) -> None:
  (output / REPORTS_FOLDER / f"{_FIRST}.json").write_text('{"file": ')


def _report_of_another_version(output: Path) -> None:
  path = output / REPORTS_FOLDER / f"{_FIRST}.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), "unheard_of": 1}))


def _binary_report(output: Path) -> None:
  (output / REPORTS_FOLDER / f"{_FIRST}.json").write_bytes(b"\xff\x00")


def _report_that_is_a_list(output: Path) -> None:
  (output / REPORTS_FOLDER / f"{_FIRST}.json").write_text("[]")


@pytest.mark.parametrize(
  "damage",
  [
    _flip_one_bit,
    _cut,
    _lose_file,
    _lose_report,
    _spoil_report,
    _report_of_another_version,
    _binary_report,
    _report_that_is_a_list,
  ],
)
def test_a_damaged_shard_and_it_alone_is_computed_again(shards, output, damage):
  _run(shards, output)
  before = _contents(output)
  damage(output)
  counters = _run(shards, output)
  assert (counters["shards_kept"], counters["shards_worked"]) == (3, 1)
  assert _contents(output) == before


def test_another_request_computes_everything_again(shards, output):
  _run(shards, output)
  assert _run(shards, output, request="another")["shards_worked"] == 4


def test_a_changed_input_computes_its_shard_again(shards, output):
  _run(shards, output)
  newer = shards[1].inputs[0]._replace(modified_secs=2.0)
  shards[1] = shards[1]._replace(inputs=(newer, *shards[1].inputs[1:]))
  counters = _run(shards, output)
  assert (counters["shards_kept"], counters["shards_worked"]) == (3, 1)


def test_a_job_without_shard_files_is_kept_by_its_reports_alone(shards, output):
  assert _run(shards, output, _CountFiles())["shards_worked"] == 4
  assert _contents(output) == {}
  assert _run(shards, output, _CountFiles()) == {"shards_kept": 4}


def test_work_waits_for_what_has_to_be_checked_first(shards, output):
  def refuse(_: int) -> int:
    raise ValueError("the check failed")

  pipeline = beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner"]))
  checked = pipeline | "CreateOne" >> beam.Create([1]) | "Check" >> beam.Map(refuse)
  work = WorkShards(_CopyFiles(), output=str(output), request="request", checked=checked)
  _ = pipeline | "Create" >> beam.Create(shards) | "Work" >> work
  with pytest.raises(ValueError, match="the check failed"):
    pipeline.run().wait_until_finish()
  assert _contents(output) == {}


def test_a_report_is_read_only_with_its_digest(shards, output):
  _run(shards, output)
  report = read_report(str(output), _FIRST, shards[0].digest("request"))
  assert report is not None
  assert report.file == _FIRST
  assert read_report(str(output), _FIRST, shards[1].digest("request")) is None
