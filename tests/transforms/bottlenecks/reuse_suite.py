"""Images of yesterday and of today, stores of their bottlenecks, and jobs with and without reuse."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest

from beam_retrain.pipelines.jobs.thread_runner import ThreadRunner
from beam_retrain.transforms.bottlenecks.embed import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.reuse import EmbedOnlyNew
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER, describe_bottleneck
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.shards.ledger import CloseLedger
from beam_retrain.transforms.shards.progress import METRICS_NAMESPACE
from beam_retrain.transforms.shards.work import WorkShards
from beam_retrain.transforms.sources.folders import find_class_folders, plan_folders
from beam_retrain.transforms.sources.idx import PlanIdxShards, find_idx_splits
from beam_retrain.transforms.sources.records import RecordsSource
from tests.helpers import file_contents, noise_image, write

LABELS = ["ant", "bee", "cat"]


SPLITS = ("training", "testing")


PERCENTAGES = SplitPercentages(testing=30.0, validation=10.0)


IMAGES_PER_SHARD = 8


NO_TRUNK = ImageModelHandler("/nowhere/trunk")


def yesterday() -> dict[str, bytes]:
  kinds = ("PNG", "JPEG", "BMP", "GIF")
  return {f"{LABELS[n % 3]}/{n}": noise_image(n, kinds[n % 4], (8 + n % 20, 30 - n % 20)) for n in range(60)}


def today() -> dict[str, bytes]:
  """Yesterday's images, some gone, edited, renamed, in another class or there twice; new ones, doubles, bad ones."""
  images = yesterday()
  del images["ant/0"], images["bee/1"]
  images["ant/3"] = noise_image(1003)
  images["bee/4"] = images["cat/2"]
  images["cat/renamed.png"] = images.pop("cat/5")
  images["bee/moved.png"] = images.pop("cat/8")
  new = {f"{LABELS[n % 3]}/new{n}.png": noise_image(2000 + n) for n in range(11)}
  # The same new image often: within shards and across, in both splits.
  doubles = {f"{LABELS[n % 3]}/double{n}.png": noise_image(3000) for n in range(14)}
  cut = noise_image(4000, "JPEG", (40, 40))[:-200]
  bad = {
    "ant/empty": b"",
    "bee/empty.jpg": b"",
    "cat/text.png": b"no image",
    **{f"{LABELS[n % 3]}/cut{n}.jpg": cut for n in range(6)},
  }
  return {**images, **new, **doubles, **bad}


@pytest.fixture(scope="module")
def handler(tiny_trunk) -> ImageModelHandler:
  return ImageModelHandler(str(tiny_trunk), batch_size=4)


Plan = Callable[[], beam.PTransform]  # Beam wants a new one for each pipeline


def plan(tree: Path) -> Plan:
  folders = find_class_folders(str(tree))
  return lambda: plan_folders(folders, SPLITS, PERCENTAGES, images_per_shard=IMAGES_PER_SHARD)


def plan_idx(folder: Path) -> Plan:
  return lambda: PlanIdxShards(find_idx_splits(str(folder)), images_per_shard=IMAGES_PER_SHARD)


def plan_records(folder: Path) -> Plan:
  return lambda: RecordsSource(str(folder)).plan(SPLITS, None)


def embed(
  planned: Plan,
  handler: ImageModelHandler,
  output: Path,
  stores: Sequence[Path] | None = None,
  *,
  labels: Sequence[str] = LABELS,
) -> dict[str, int]:
  """Writes all bottlenecks, without reuse where there is not even an empty list of stores; returns the counters."""
  records = output / "records"
  (records / REPORTS_FOLDER).mkdir(parents=True, exist_ok=True)
  if stores is None:
    work: beam.PTransform = WorkShards(EmbedShard(handler, labels), output=str(records), request="request")
  else:
    work = EmbedOnlyNew(
      handler=handler,
      labels=labels,
      stores=[str(store) for store in stores],
      output=str(records),
      fresh_folder=str(output / ".fresh"),
      request="request",
      images_per_shard=IMAGES_PER_SHARD,
    )
  pipeline = beam.Pipeline(ThreadRunner())
  shards = pipeline | "Plan" >> planned()
  reports = shards | "Work" >> work
  _ = (shards, reports) | "Close" >> CloseLedger(output=str(output), shards_folder=str(records))
  result = pipeline.run()
  result.wait_until_finish()
  found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(METRICS_NAMESPACE))["counters"]
  return {counter.key.metric.name: counter.committed for counter in found if counter.committed}


def contents(folder: Path) -> dict[str, bytes]:
  """Every file of an output but for the reports, the fresh ones and the counts, by its path."""
  found = file_contents(folder)
  return {name: data for name, data in found.items() if ".fresh/" not in name and ".shards" not in name}


def reports(folder: Path) -> list[dict[str, Any]]:
  """The reports of all shards but for what only they know: how many were computed and how many reused."""
  found = [json.loads(path.read_text()) for path in sorted((folder / "records" / REPORTS_FOLDER).iterdir())]
  return [{name: value for name, value in report.items() if name != "extra"} for report in found]


def check_same(output: Path, cold: Path, computed: int) -> None:
  """Checks that an output is that of a cold run, byte for byte, but for the counts, which add up."""
  expected, found = contents(cold), contents(output)
  cold_stats, stats = json.loads(expected.pop("stats.json")), json.loads(found.pop("stats.json"))
  assert sorted(found) == sorted(expected)
  assert found == expected
  assert reports(output) == reports(cold)
  assert stats.pop("bottlenecks") == {"computed": computed, "reused": stats["outputs"] - computed}
  assert cold_stats.pop("bottlenecks") == {"computed": stats["outputs"], "reused": 0}
  assert list(stats.items()) == list(cold_stats.items())


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory) -> Path:
  return write(tmp_path_factory.mktemp("yesterday") / "tree", yesterday())


@pytest.fixture(scope="module")
def store(old_tree, handler, tmp_path_factory) -> Path:
  """Yesterday's output. Its images were touched since: no shard is carried, all are matched."""
  output = tmp_path_factory.mktemp("yesterday") / "output"
  embed(plan(old_tree), handler, output)
  time.sleep(0.02)  # a file system's clock has steps of some milliseconds
  for path in old_tree.rglob("*"):
    path.chmod(path.stat().st_mode)
  return output


@pytest.fixture(scope="module")
def new_tree(tmp_path_factory) -> Path:
  return write(tmp_path_factory.mktemp("today") / "tree", today())


@pytest.fixture(scope="module")
def cold(new_tree, handler, tmp_path_factory) -> Path:
  output = tmp_path_factory.mktemp("today") / "cold"
  embed(plan(new_tree), handler, output)
  assert len(list((output / "records").glob("*.tfrecord"))) > 8
  return output


def write_idx(folder: Path, pixels: np.ndarray, labels: np.ndarray, gz: bool = False) -> Path:
  folder.mkdir()
  for name, some in (("train", slice(0, 25)), ("t10k", slice(25, None))):
    for kind, array in (("images-idx3", pixels[some]), ("labels-idx1", labels[some])):
      data = encode_idx(array)
      path = folder / f"{name}-{kind}-ubyte{'.gz' if gz else ''}"
      path.write_bytes(gzip.compress(data, mtime=0) if gz else data)
  return folder


def cut_short(path: Path, start: int) -> None:
  os.truncate(path, start + 20)


def flip(path: Path, start: int) -> None:
  data = bytearray(path.read_bytes())
  data[start + 100] ^= 1
  path.write_bytes(data)


def lead_nowhere(path: Path, _: int) -> None:
  path.unlink()
  path.symlink_to("gone")


def forget(output: Path, keep: Callable[[int], bool]) -> None:
  """As after a kill: some shards are not there, nor is what is written last."""
  for number, path in enumerate(sorted((output / "records").glob("*.tfrecord"))):
    if not keep(number):
      path.unlink()
      (output / "records" / REPORTS_FOLDER / f"{path.name}.json").unlink()
  (output / "stats.json").unlink()


# As a user runs it.


def arguments(tree: Path, trunk: Path, output: Path, *more: str) -> list[str]:
  return [f"--input={tree}", f"--trunk={trunk}", f"--output={output}", *more]


def keys_of(path: Path) -> list[str]:
  with path.open("rb") as file:
    return [describe_bottleneck(record).key for record in read_records(file, path.name)]
