"""Which stored bottlenecks are of use: those of the same trunk, finished, wherever a command keeps them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from beam_retrain.transforms.bottlenecks.store import find_stores, locate_bottlenecks, record_files, store_folder
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import PREPROCESSING_VERSION, describe_bottleneck
from beam_retrain.transforms.core.records.tfrecord import read_record_at
from beam_retrain.transforms.core.runtimes import variant
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo

_OTHER = "0123456789abcdef" * 4


@pytest.fixture
def store(bottlenecks_folder, tmp_path) -> Path:
  """A copy, to be spoilt, without the trunk."""
  folder = tmp_path / "store"
  shutil.copytree(bottlenecks_folder, folder, ignore=shutil.ignore_patterns("trunk", "transform"))
  return folder


@pytest.fixture
def fingerprint(store) -> str:
  found: str = json.loads((store / "info.json").read_text())["trunk"]["fingerprint"]
  return found


def change_info(store: Path, change: Callable[[dict], object]) -> None:
  info = json.loads((store / "info.json").read_text())
  change(info)
  info.pop("lists_files", None)  # as 0.4 wrote it, without a list
  (store / "info.json").write_text(json.dumps(info))
  (store / "COMPLETED").write_bytes(b"")


def test_an_output_of_the_command_is_a_store(store, fingerprint):
  assert find_stores([str(store)], fingerprint, PREPROCESSING_VERSION) == [str(store)]
  assert [Path(path).name for path in record_files(str(store))] == [
    "testing-00000-of-00001.tfrecord",
    "training-00000-of-00001.tfrecord",
  ]


def test_a_store_with_a_damaged_info_is_refused(store, fingerprint):
  info = store / "info.json"
  info.write_text(info.read_text().replace('"batch_size": 32', '"batch_size": 33'))
  with pytest.raises(InputError, match=r"info\.json has changed since it was written: omit --reuse"):
    find_stores([str(store)], fingerprint, PREPROCESSING_VERSION)


def test_a_store_within_another_output_is_found_by_its_trunk(store, fingerprint, tmp_path):
  night = tmp_path / "night"
  ours, other = (Path(store_folder(str(night), digits)) for digits in (fingerprint, _OTHER))
  assert ours == night / "bottlenecks" / fingerprint[:12]
  for folder in (other, ours):
    shutil.copytree(store, folder)
    change_info(folder, lambda info: info.update(stage="store"))
  change_info(other, lambda info: info["trunk"].update(fingerprint=_OTHER))
  trunk = TrunkInfo("bundled", fingerprint, 75, 512, fingerprint)
  (night / "info.json").write_text(json.dumps({"stage": "evaluate", "trunk": trunk.to_json()}))
  assert find_stores([str(night)], fingerprint, PREPROCESSING_VERSION) == [str(ours)]
  assert find_stores([str(night)], _OTHER, PREPROCESSING_VERSION) == [str(other)]


def test_the_order_stays_and_a_folder_given_twice_counts_once(store, fingerprint, tmp_path):
  second = tmp_path / "a second"
  shutil.copytree(store, second)
  given = [str(store), str(second), str(store)]
  assert find_stores(given, fingerprint, PREPROCESSING_VERSION) == [str(store), str(second)]
  assert find_stores([], fingerprint, PREPROCESSING_VERSION) == []


@pytest.mark.parametrize(
  ("spoil", "sentence"),
  [
    (lambda store: (store / "COMPLETED").unlink(), "is not finished: finish the run that wrote it"),
    (lambda store: shutil.rmtree(store / "records"), "has no records: omit --reuse"),
    (lambda store: (store / "info.json").unlink(), "contains no bottlenecks: give the output"),
    (lambda store: (store / "info.json").write_text("{"), "contains no bottlenecks: give the output"),
    (lambda store: change_info(store, lambda info: info.update(stage="train")), "contains no bottlenecks"),
    (
      lambda store: change_info(store, lambda info: info["trunk"].update(fingerprint=_OTHER)),
      r"are of another trunk \(.*, 0123456789ab\) than the current one \([0-9a-f]{12}\): omit --reuse",
    ),
    (
      lambda store: change_info(store, lambda info: info["settings"].update(preprocessing="0: other")),
      r"were computed with preprocessing '0: other', but the current one is '1: ",
    ),
  ],
)
def test_what_is_of_no_use_is_refused_by_name(store, fingerprint, spoil, sentence):
  spoil(store)
  with pytest.raises(InputError, match=f"{store}.* {sentence}"):
    find_stores([str(store)], fingerprint, PREPROCESSING_VERSION)


def test_of_a_trunk_that_cannot_be_had_here_it_is_said_what_is_missing(store, fingerprint, monkeypatch):
  fast = {"runtime": "openvino", "precision": "bfloat16", "fingerprint": _OTHER}
  change_info(store, lambda info: info["trunk"].update(fast))
  for has_it, sentence in (
    (
      True,
      r"another trunk \(.* in bfloat16 by OpenVINO, .*, or use that trunk .* same --precision and --runtime",
    ),
    (
      False,
      r"this machine cannot run \(OpenVINO is not installed: .*pip install .*\), .*: omit --reuse .* to compute all",
    ),
  ):
    monkeypatch.setattr(variant, "has_openvino", lambda has_it=has_it: has_it)
    monkeypatch.setattr(variant, "openvino_fault", lambda: "")
    monkeypatch.setattr(variant, "has_bfloat16", lambda: True)
    with pytest.raises(InputError, match=sentence):
      find_stores([str(store)], fingerprint, PREPROCESSING_VERSION)


def test_a_folder_that_is_not_there_is_refused(fingerprint, tmp_path):
  with pytest.raises(InputError, match=f"--reuse {tmp_path}/none contains no bottlenecks"):
    find_stores([f"{tmp_path}/none"], fingerprint, PREPROCESSING_VERSION)


def test_each_record_is_where_it_is_said_to_be(store):
  for path in record_files(str(store)):
    located = list(locate_bottlenecks(path))
    assert located
    with open(path, "rb") as file:
      # From the last to the first: each is found by its own byte.
      for digest, position in reversed(located):
        assert describe_bottleneck(read_record_at(file, position, path)).sha256 == digest.hex()


def test_other_records_are_named(tmp_path):
  from beam_retrain.transforms.core.records.example import encode_example
  from beam_retrain.transforms.core.records.tfrecord import frame

  path = tmp_path / "other.tfrecord"
  path.write_bytes(frame(encode_example({"text": "a"})))
  with pytest.raises(InputError, match=f"{path} contains a record without 'image/sha256'"):
    list(locate_bottlenecks(str(path)))
