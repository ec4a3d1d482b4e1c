"""What `plan` says, as text."""

import pytest

from beam_retrain.reporting.cost_table import duration, plan_table, size
from beam_retrain.transforms.core.run.cost_model import JobCosts, expect

COSTS = JobCosts(8.0, 0.00001, 0.00002, 0.1, 1 / 168, 0.0001, 1_430_000_000, 8400, 96_000_000)
MNIST = {"training": 60_000, "testing": 10_000}


@pytest.mark.parametrize(
  ("secs", "text"),
  [
    (0.04, "0.0 s"),
    (9.94, "9.9 s"),
    (59.4, "59 s"),
    (59.6, "1 min 0 s"),
    (432, "7 min 12 s"),
    (3599.6, "1 h 0 min"),
    (11_100, "3 h 5 min"),
    (86_395, "1 day 0 h"),
    (1_051_200, "12 days 4 h"),
  ],
)
def test_durations(secs, text):
  assert duration(secs) == text


@pytest.mark.parametrize(
  ("count", "text"),
  [
    (980, "980 bytes"),
    (9_940, "9.9 kB"),
    (9_960, "10 kB"),
    (999_600, "1.0 MB"),
    (164_000_000, "164 MB"),
    (8.4e12, "8.4 TB"),
    (2e18, "2000 PB"),
  ],
)
def test_sizes(count, text):
  assert size(count) == text


def test_table_of_one_worker():
  assert (
    plan_table(expect(COSTS, MNIST), ["bundled", "batches of 32"], ["a note"])
    == """\
images      70,000: 60,000 training, 10,000 testing
shards      69: 59 training, 10 testing, of about 1,024 images
trunk       bundled, batches of 32
speed       168 images/s
time        7 min 21 s
  start     8.0 s         start Python, load libraries and the trunk, build the job
  listing   0.7 s         skip names that are not in the sample
  planning  1.4 s         list images, assign them to shards, count them
  trunk     7 min 4 s     read, decode, compute, write
  closing   7.0 s         analysis, split audit, ledger
memory      1.4 GB in each process
disk        684 MB: records 588 MB, trunk and the rest 96 MB
a note"""
  )


def test_table_of_too_many_workers():
  shown = plan_table(expect(COSTS, {"training": 2048}, 5), ["bundled"]).splitlines()
  assert "images      2,048 training" in shown
  assert "speed       168 images/s on each worker" in shown
  assert "workers     5; the busiest has 1 shard" in shown
  assert shown[-1] == "workers beyond 2 have nothing to do: each shard has one worker"
