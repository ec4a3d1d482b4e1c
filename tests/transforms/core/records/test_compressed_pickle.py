"""What travels packed is the same when it arrives, and smaller on its way."""

from __future__ import annotations

import pickle

from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.shards import Shard, pack, unpack
from beam_retrain.transforms.sources.idx import IdxRange
from beam_retrain.transforms.sources.image_files import ImageFile


def files_shard(count: int) -> Shard:
  images = [
    ImageFile(
      f"training/5/{number}.png", "5", f"/data/set/training/5/{number}.png", 100 + number % 7, 1.7e9 + number / 7
    )
    for number in range(count)
  ]
  return Shard("training", 3, 9, (*images, Quarantined("bad", 0, Reason.UNREADABLE, "", "training")), "same")


def test_a_shard_of_files_travels_in_a_quarter_of_its_size_and_is_the_same():
  shard = files_shard(1000)
  travelled = pickle.dumps(shard)
  arrived = pickle.loads(travelled)
  assert arrived == shard
  assert type(arrived) is Shard
  assert {type(entry) for entry in arrived.inputs} == {ImageFile, Quarantined}
  assert arrived.digest("request") == shard.digest("request")
  assert len(travelled) < len(pickle.dumps(tuple(shard))) / 4


def test_a_range_travels_as_it_is():
  shard = Shard("training", 0, 1, (IdxRange("images", "labels", 0, 2, 2, 2, b"pixels--", b"12"),))
  assert b"pixels--" in pickle.dumps(shard)
  assert pickle.loads(pickle.dumps(shard)) == shard


def test_packed_and_unpacked():
  assert unpack(pack(["a", ("b", 1)])) == ("a", ("b", 1))
