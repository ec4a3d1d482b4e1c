"""The arithmetic of benchmarks/scaling.py."""

import json
import math
from pathlib import Path

import pytest

from beam_retrain.transforms.core.run.cost_model import JobCosts, expect, to_json_entries
from beam_retrain.transforms.core.runtimes.trunk_info import TrunkInfo
from beam_retrain.transforms.core.runtimes.variant import Variant
from benchmarks.scaling import Limit, bytes_per_image, fewest_workers, limits_table, main, put_into
from tests.helpers import ROOT

COSTS = JobCosts(10.0, 1e-6, 0.0, 0.1, 0.006, 1e-4, 10**9, 8400.0, 10**8)


@pytest.mark.parametrize("secs", [3600.0, 86_400.0])
def test_one_worker_less_is_too_few(secs):
  images = 100_000_000
  workers = fewest_workers(COSTS, images, secs)
  assert workers > 1
  assert expect(COSTS, {"all": images}, workers).total_secs <= secs
  assert expect(COSTS, {"all": images}, workers - 1).total_secs > secs


def test_what_nobody_shares_cannot_be_sped_up():
  assert fewest_workers(COSTS, 10**9, 9.0) is None  # the start alone takes 10 s
  assert fewest_workers(COSTS, 10**9, 900.0)  # and listing for the sample no more than for 100,000 images
  assert fewest_workers(COSTS, 10_000, 3600.0) == 1


def test_growth_is_the_slope_of_one_process():
  rows = [
    {"stage": "bottlenecks", "images": images, "processes": processes, "peaks_mb": peaks}
    for images, processes, peaks in [(1000, 1, [900.0]), (101_000, 1, [20.0, 950.0]), (101_000, 2, [5000.0])]
  ]
  assert bytes_per_image(rows) == pytest.approx(50e6 / 100_000)
  assert bytes_per_image(rows[:1]) is None
  assert bytes_per_image(rows, "convert") is None


def test_what_breaks_first_comes_first():
  limits = [
    Limit("flat", 0.0, "", ""),
    Limit("unknown", None, "", ""),
    Limit("slow", 1.0, "", ""),
    Limit("fast", 8.0, "", ""),
  ]
  assert [limit.breaks_at(64e9) for limit in limits] == [None, None, 64e9, 8e9]
  names = [line.split(" | ")[0].removeprefix("| ") for line in limits_table(limits, 64e9).splitlines()[2:]]
  assert names == ["fast", "slow", "flat", "unknown"]
  assert "8e9 images" in limits_table(limits, 64e9)


def test_the_page_keeps_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  plan = {
    "trunk": TrunkInfo("bundled", "f" * 64, 75, 512, "f" * 64, Variant("openvino", "bfloat16")).to_json(),
    "costs": to_json_entries(COSTS),
  }
  (tmp_path / "plan.json").write_text(json.dumps(plan))
  page = tmp_path / "scaling.md"
  page.write_text((ROOT / "benchmarks" / "scaling.md").read_text())
  monkeypatch.setattr("sys.argv", ["scaling", f"--plan={tmp_path / 'plan.json'}", f"--page={page}"])
  main()
  first = page.read_text()
  assert "## Reading them" in first
  assert "| 1,000,000,000 |" in first
  # 70,000 images on one worker, by the formula of the page.
  shards = math.ceil(70_000 / 1024)
  assert f"| {(10 + 0.07 + shards * 0.1 + 70_000 * 0.0061) / 3600:,.1f} |" in first
  main()
  assert page.read_text() == first


def test_a_page_without_marks_is_left_alone():
  with pytest.raises(SystemExit):
    put_into("a page", "tables")
