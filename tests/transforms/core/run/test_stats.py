"""The ledger adds up, or says where it does not."""

from __future__ import annotations

import dataclasses
import json

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.shards import BottleneckCounts, ShardReport
from beam_retrain.transforms.core.run.stats import SplitCounts, Stats, sum_reports

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


def _reports() -> list[ShardReport]:
  return [
    _report(),
    _report("training-00001-of-00002.tfrecord", outputs=5, labels={"five": 5}, quarantined=()),
    _report("testing-00000-of-00001.tfrecord", inputs=1, outputs=0, labels={}),
  ]


_PLANNED = {"training": 2, "testing": 1}


def test_the_ledger_adds_up():
  assert json.loads(sum_reports(_reports(), _PLANNED).to_json()) == {
    "splits": {
      "training": {"inputs": 10, "outputs": 9, "quarantined": 1, "shards": 2, "labels": {"five": 6, "seven": 3}},
      "testing": {"inputs": 1, "outputs": 0, "quarantined": 1, "shards": 1, "labels": {}},
    },
    "reasons": {"EMPTY": 2},
    "inputs": 11,
    "outputs": 9,
    "quarantined": 2,
    "bad_fraction": 2 / 11,
  }


def test_the_order_of_reports_does_not_count():
  assert sum_reports(reversed(_reports()), _PLANNED) == sum_reports(_reports(), _PLANNED)


def test_what_the_user_asked_to_drop_is_in_the_ledger_but_is_not_bad():
  reasons = (Reason.CONFLICTING_LABELS, Reason.LEAKED, Reason.EMPTY)
  quarantined = tuple(dataclasses.replace(_BAD, reason=reason) for reason in reasons)
  stats = sum_reports([_report(inputs=7, quarantined=quarantined)], {"training": 1})
  assert (stats.inputs, stats.outputs, stats.quarantined, stats.bad_fraction) == (7, 4, 3, 1 / 7)
  assert stats.reasons == {"CONFLICTING_LABELS": 1, "EMPTY": 1, "LEAKED": 1}


def test_a_split_without_shards_is_listed_with_zeros():
  stats = sum_reports([], {"training": 0})
  assert stats.splits["training"] == SplitCounts(0, 0, 0, 0, {})
  assert stats.bad_fraction == 0.0


def test_a_lost_input_is_found():
  reports = _reports()
  reports[1] = dataclasses.replace(reports[1], inputs=6)
  with pytest.raises(InputError, match=r"do not add up.*training-00001-of-00002\.tfrecord read 6 inputs but wrote 5"):
    sum_reports(reports, _PLANNED)


def test_an_invented_output_is_found():
  reports = _reports()
  reports[0] = dataclasses.replace(reports[0], outputs=5)
  with pytest.raises(InputError, match=r"do not add up.*training-00000"):
    sum_reports(reports, _PLANNED)


def test_labels_that_do_not_add_up_to_the_outputs_are_found():
  reports = _reports()
  reports[0] = dataclasses.replace(reports[0], labels={"seven": 3})
  with pytest.raises(InputError, match=r"do not add up.*training-00000"):
    sum_reports(reports, _PLANNED)


def test_a_shard_reported_twice_is_found():
  with pytest.raises(InputError, match=r"testing-00000-of-00001\.tfrecord was reported twice"):
    sum_reports([*_reports(), _reports()[2]], _PLANNED)


def test_a_shard_that_was_not_reported_is_found():
  with pytest.raises(InputError, match="1 of 2 training shards were reported"):
    sum_reports(_reports()[1:], _PLANNED)


def test_more_shards_than_planned_are_found():
  with pytest.raises(InputError, match="2 of 1 training shards were reported"):
    sum_reports(_reports(), {**_PLANNED, "training": 1})


def test_bottlenecks_are_added_up_where_the_reports_know_them():
  assert sum_reports(_reports(), _PLANNED).bottlenecks is None
  reports = _reports()
  reports[0] = dataclasses.replace(reports[0], extra={"bottlenecks": {"computed": 1, "reused": 3}})
  reports[1] = dataclasses.replace(reports[1], extra={"bottlenecks": {"computed": 4, "reused": 0}})
  stats = sum_reports(reports, _PLANNED)
  assert stats.bottlenecks == BottleneckCounts(computed=5, reused=3)
  assert json.loads(stats.to_json())["bottlenecks"] == {"computed": 5, "reused": 3}


def test_stats_come_back_from_their_json():
  stats = dataclasses.replace(
    sum_reports(_reports(), _PLANNED),
    bottlenecks=BottleneckCounts(1, 2),
    distorted={"copies": 4},
    leaks={"different_labels": {"groups": 1, "images": 2}},
  )
  assert Stats.from_json(stats.to_json().encode()) == stats
  assert list(json.loads(stats.to_json()))[-3:] == ["bottlenecks", "distorted", "leaks"]
