"""The reports and the digests of shards."""

from __future__ import annotations

import dataclasses

import pytest

from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.shards import Shard, ShardReport, pick_inputs
from beam_retrain.transforms.sources.idx import IdxRange
from beam_retrain.transforms.sources.image_files import ImageFile
from beam_retrain.transforms.sources.records import PickedRecords, RecordsFile

_BAD = Quarantined("training/5/3.jpg", 0, Reason.EMPTY, "the file has 0 bytes", "training")


def _report(file: str = "training-00000-of-00002.tfrecord", **changes) -> ShardReport:
  report = ShardReport(
    file=file,
    split=file.split("-")[0],
    inputs=5,
    outputs=4,
    size_bytes=100,
    sha256="ab" * 32,
    digest="cd" * 32,
    labels={"seven": 3, "five": 1},
    quarantined=(_BAD,),
  )
  return dataclasses.replace(report, **changes)


def test_a_report_comes_back_from_its_json():
  report = _report(extra={"seconds": 1.5, "names": ["a"]})
  assert ShardReport.from_json(report.to_json()) == report
  assert isinstance(ShardReport.from_json(report.to_json()).quarantined[0].reason, Reason)


def test_a_report_is_the_same_text_whatever_the_order_of_its_labels():
  assert _report(labels={"five": 1, "seven": 3}).to_json() == _report().to_json()


@pytest.mark.parametrize(
  "text",
  ["", "[]", "{}", '{"quarantined": []}', '{"quarantined": [{"reason": "NEW"}]}', _report(file="../x").to_json()],
)
def test_other_text_is_no_report(text):
  with pytest.raises((ValueError, TypeError, KeyError)):
    ShardReport.from_json(text)


_IMAGE = ImageFile("a/1.jpg", "a", "/data/a/1.jpg", 10, 5.0)
_IDX = IdxRange("/images", "/labels", 0, 10, 28, 28, b"pixels", b"labels")
_RECORDS = RecordsFile("/records", 10, 5.0)
_SHARD = Shard("training", 0, 2, (_IMAGE, _IDX, _RECORDS))


def test_the_same_shard_has_the_same_digest():
  assert _SHARD.digest("request") == Shard("training", 0, 2, (_IMAGE, _IDX, _RECORDS)).digest("request")
  assert len(_SHARD.digest("request")) == 64


@pytest.mark.parametrize(
  "other",
  [
    _SHARD._replace(split="testing"),
    _SHARD._replace(index=1),
    _SHARD._replace(of=3),
    _SHARD._replace(inputs=(_IMAGE, _IDX)),
    _SHARD._replace(inputs=(_IDX, _IMAGE, _RECORDS)),
    _SHARD._replace(inputs=(_IMAGE._replace(label="b"), _IDX, _RECORDS)),
    _SHARD._replace(inputs=(_IMAGE._replace(size_bytes=11), _IDX, _RECORDS)),
    _SHARD._replace(inputs=(_IMAGE._replace(modified_secs=6.0), _IDX, _RECORDS)),
    _SHARD._replace(inputs=(_IMAGE, _IDX._replace(start=1), _RECORDS)),
    _SHARD._replace(inputs=(_IMAGE, _IDX._replace(pixels=b"other."), _RECORDS)),
    _SHARD._replace(inputs=(_IMAGE, _IDX._replace(labels=None), _RECORDS)),
    _SHARD._replace(inputs=(_IMAGE, _IDX, _RECORDS._replace(modified_secs=6.0))),
    _SHARD._replace(inputs=(_BAD, _IDX, _RECORDS)),
  ],
)
def test_whatever_changes_the_bytes_changes_the_digest(other):
  assert other.digest("request") != _SHARD.digest("request")


def test_another_request_is_another_digest():
  assert _SHARD.digest("request") != _SHARD.digest("other request")


def test_a_shard_knows_its_file():
  assert _SHARD.name() == "training-00000-of-00002.tfrecord"
  assert _SHARD.name("csv") == "training-00000-of-00002.csv"


def test_a_shard_that_stands_for_another_has_its_digest():
  planned = _SHARD.digest("request")
  assembled = _SHARD._replace(inputs=(), same_as=planned)
  assert assembled.digest("request") == planned
  assert assembled.name() == _SHARD.name()


def test_images_in_files_of_their_own_are_picked_by_position():
  images = [_IMAGE._replace(key=str(number)) for number in range(5)]
  assert pick_inputs(images, [0, 3, 4]) == (images[0], images[3], images[4])
  assert pick_inputs(images, []) == ()


def test_a_range_is_cut_into_runs_with_their_bytes():
  plain = IdxRange("/images", "/labels", 100, 6, 2, 3, None, None, 1.0)
  assert pick_inputs([plain], [0, 1, 4]) == (plain._replace(count=2), plain._replace(start=104, count=1))
  carried = plain._replace(pixels=bytes(range(36)), labels=b"abcdef")
  assert pick_inputs([carried], [1, 2, 5]) == (
    carried._replace(start=101, count=2, pixels=bytes(range(6, 18)), labels=b"bc"),
    carried._replace(start=105, count=1, pixels=bytes(range(30, 36)), labels=b"f"),
  )
  assert pick_inputs([carried], range(6)) == (carried,)


def test_positions_go_on_from_one_input_to_the_next():
  plain = IdxRange("/images", "/labels", 0, 4, 2, 3, None, None)
  inputs = [_IMAGE, plain, _IMAGE, _RECORDS]
  assert pick_inputs(inputs, [0, 1, 4, 5, 6, 9]) == (
    _IMAGE,
    plain._replace(count=1),
    plain._replace(start=3, count=1),
    _IMAGE,
    PickedRecords("/records", 10, 5.0, (0, 3)),
  )


def test_a_dropped_image_and_picked_records_are_picked_again():
  inputs = [PickedRecords("/records", 10, 5.0, (2, 5, 8, 9)), _BAD, _IMAGE]
  assert pick_inputs(inputs, [1, 3, 4, 5]) == (PickedRecords("/records", 10, 5.0, (5, 9)), _BAD, _IMAGE)
  assert pick_inputs(inputs, [5]) == (_IMAGE,)


def test_another_dropped_image_is_another_digest():
  dropped = [_SHARD._replace(inputs=(_IDX, entry)) for entry in (_BAD, dataclasses.replace(_BAD, key="other"))]
  assert len({shard.digest("request") for shard in dropped}) == 2
