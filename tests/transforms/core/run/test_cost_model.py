"""What a job will take, by arithmetic."""

import math

import pytest

from beam_retrain.transforms.core.run.cost_model import JobCosts, expect, shard_costs, to_json_entries, whole_rounds

COSTS = JobCosts(
  start_secs=10.0,
  listing_secs=0.003,
  planning_secs=0.001,
  shard_secs=0.5,
  image_secs=0.01,
  closing_secs=0.002,
  memory_bytes=10**9,
  record_bytes=100.5,
  folder_bytes=5000,
)


def test_one_worker_works_all_shards():
  expected = expect(COSTS, {"training": 2049, "testing": 1000})
  assert expected.shards == {"training": 3, "testing": 1}
  assert expected.rounds == 4
  assert expected.seconds == pytest.approx(
    {
      "start": 10.0,
      "listing": 3049 * 0.003,
      "planning": 3.049,
      "trunk": 4 * 0.5 + 3049 * 0.01,
      "closing": 3049 * 0.002,
    }
  )
  assert expected.total_secs == pytest.approx(10 + 9.147 + 3.049 + 32.49 + 6.098)
  assert (expected.memory_bytes, expected.records_bytes, expected.disk_bytes) == (10**9, 306424, 311424)
  assert expected.images_per_sec == pytest.approx(100)


@pytest.mark.parametrize(("workers", "rounds"), [(1, 100), (3, 34), (50, 2), (99, 2), (100, 1), (1000, 1)])
def test_the_busiest_worker_decides(workers, rounds):
  images = 100 * 1024
  alone, shared = expect(COSTS, {"training": images}), expect(COSTS, {"training": images}, workers)
  assert shared.rounds == rounds
  for part in ("planning", "trunk", "closing"):
    assert shared.seconds[part] == pytest.approx(alone.seconds[part] * rounds / 100)
  for part in ("start", "listing"):
    assert shared.seconds[part] == alone.seconds[part]


def test_listing_for_the_sample_is_of_a_bounded_number():
  few, many, more = (expect(COSTS, {"training": count}).seconds["listing"] for count in (50_000, 100_000, 10**9))
  assert (2 * few, many) == (many, more)


def test_no_images_cost_the_start():
  assert expect(COSTS, {"training": 0}, 4).total_secs == COSTS.start_secs


def test_json_says_picture():
  expected = expect(COSTS, {"training": 5})
  entries = to_json_entries(expected)
  assert entries["pictures_per_sec"] == expected.images_per_sec
  assert list(entries)[-2:] == ["total_secs", "disk_bytes"]
  assert entries["disk_bytes"] == 5502
  assert not any("image" in name for name in [*entries, *to_json_entries(COSTS)])


def test_two_shards_tell_the_image_from_the_shard():
  assert shard_costs(32, 0.5 + 0.32, 1024, 0.5 + 10.24) == pytest.approx((0.5, 0.01))


@pytest.mark.parametrize(
  ("few_secs", "many", "many_secs"),
  [
    (1.0, 32, 2.0),  # there are no more images than those few
    (3.0, 64, 2.0),  # noise: fewer took longer
  ],
)
def test_where_they_cannot_be_told_apart_it_is_all_the_images(few_secs, many, many_secs):
  assert shard_costs(32, few_secs, many, many_secs) == (0.0, 2.0 / many)


def test_no_shard_costs_less_than_nothing():
  # Twice the images took thrice as long.
  shard_secs, image_secs = shard_costs(32, 1.0, 64, 3.0)
  assert (shard_secs, image_secs) == (0.0, 2.0 / 32)


@pytest.mark.parametrize(
  ("images", "rounds", "at_once", "repeats"),
  [(1024, 4, 256, 1), (1000, 100, 960, 6), (150, 4, 128, 2), (64, 4, 64, 4), (64, 1, 64, 1)],
)
def test_what_is_worked_to_measure_is_whole_rounds(images, rounds, at_once, repeats):
  assert whole_rounds(64, images, rounds) == (at_once, repeats)


def test_two_batches_at_a_time_are_not_taken_for_one_each():
  # A batch of 32 takes a core 0.9 s, and there are two cores: a step every 64 images.
  def secs(images):
    return math.ceil(images / 64) * 0.9

  many, _ = whole_rounds(64, 1024, 4)
  shard_secs, image_secs = shard_costs(64, secs(64), many, secs(many))
  assert (shard_secs, image_secs) == pytest.approx((0, 0.9 / 64))
