"""Reused bottlenecks: the same bytes as without reuse, and the trunk runs over new images only."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image as Pillow

import beam_retrain.transforms.bottlenecks.reuse
from beam_retrain.pipelines.bottlenecks import run
from beam_retrain.pipelines.convert import run as convert
from beam_retrain.transforms.bottlenecks.assemble import AssembleShard
from beam_retrain.transforms.bottlenecks.compute import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.reuse import EmbedOnlyNew, Hashed, Place, Stored, bucket_count, match, pack
from beam_retrain.transforms.bottlenecks.store import locate_bottlenecks
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.records.schema import describe_bottleneck
from beam_retrain.transforms.core.records.shards import ImageFile, Shard, StoredBottleneck
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.shards.ledger import CloseLedger
from beam_retrain.transforms.shards.work import METRICS_NAMESPACE, REPORTS_FOLDER, WorkShards
from beam_retrain.transforms.sources.find import RecordsSource, read_images
from beam_retrain.transforms.sources.folders import PlanImageFolders, find_class_folders
from beam_retrain.transforms.sources.idx import PlanIdxShards, find_idx_splits

_LABELS = ["ant", "bee", "cat"]
_SPLITS = ("training", "testing")
_PERCENTAGES = SplitPercentages(testing=30.0, validation=10.0)
_IMAGES_PER_SHARD = 8
_NO_TRUNK = ImageModelHandler("/nowhere/trunk")
_TWO_PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


def image(seed: int, kind: str = "PNG", size: tuple[int, int] = (12, 9)) -> bytes:
  file = io.BytesIO()
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
  Pillow.fromarray(pixels).save(file, kind)
  return file.getvalue()


def write(root: Path, images: dict[str, bytes]) -> Path:
  for key, encoded in images.items():
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_bytes(encoded)
  return root


def yesterday() -> dict[str, bytes]:
  kinds = ("PNG", "JPEG", "BMP", "GIF")
  return {f"{_LABELS[n % 3]}/{n}": image(n, kinds[n % 4], (8 + n % 20, 30 - n % 20)) for n in range(60)}


def today() -> dict[str, bytes]:
  """Yesterday's images, some gone, edited, renamed, in another class or there twice; new ones, doubles, bad ones."""
  images = yesterday()
  del images["ant/0"], images["bee/1"]
  images["ant/3"] = image(1003)
  images["bee/4"] = images["cat/2"]
  images["cat/renamed.png"] = images.pop("cat/5")
  images["bee/moved.png"] = images.pop("cat/8")
  new = {f"{_LABELS[n % 3]}/new{n}.png": image(2000 + n) for n in range(11)}
  # The same new image often: within shards and across, in both splits.
  doubles = {f"{_LABELS[n % 3]}/double{n}.png": image(3000) for n in range(14)}
  cut = image(4000, "JPEG", (40, 40))[:-200]
  bad = {
    "ant/empty": b"",
    "bee/empty.jpg": b"",
    "cat/text.png": b"no image",
    **{f"{_LABELS[n % 3]}/cut{n}.jpg": cut for n in range(6)},
  }
  return {**images, **new, **doubles, **bad}


@pytest.fixture(scope="module")
def handler(tiny_trunk) -> ImageModelHandler:
  return ImageModelHandler(str(tiny_trunk), batch_size=4)


Plan = Callable[[], beam.PTransform]  # Beam wants a new one for each pipeline


def plan(tree: Path) -> Plan:
  folders = find_class_folders(str(tree))
  return lambda: PlanImageFolders(folders, _SPLITS, _PERCENTAGES, images_per_shard=_IMAGES_PER_SHARD)


def plan_idx(folder: Path) -> Plan:
  return lambda: PlanIdxShards(find_idx_splits(str(folder)), images_per_shard=_IMAGES_PER_SHARD)


def plan_records(folder: Path) -> Plan:
  return lambda: RecordsSource(str(folder), str(folder / "records")).plan(_SPLITS, None)


def options(*flags: str) -> PipelineOptions:
  return PipelineOptions(flags=["--runner=FnApiRunner", *flags])


def embed(
  planned: Plan,
  handler: ImageModelHandler,
  output: Path,
  stores: Sequence[Path] | None = None,
  *,
  labels: Sequence[str] = _LABELS,
  flags: Sequence[str] = (),
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
      images_per_shard=_IMAGES_PER_SHARD,
    )
  pipeline = beam.Pipeline(options=options(*flags))
  shards = pipeline | "Plan" >> planned()
  reports = shards | "Work" >> work
  _ = (shards, reports) | "Close" >> CloseLedger(output=str(output), shards_folder=str(records))
  result = pipeline.run()
  result.wait_until_finish()
  found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(METRICS_NAMESPACE))["counters"]
  return {counter.key.metric.name: counter.committed for counter in found if counter.committed}


def contents(folder: Path) -> dict[str, bytes]:
  """Every file of an output but for the reports, the fresh ones and the counts, by its path."""
  found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
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
  output = tmp_path_factory.mktemp("yesterday") / "output"
  embed(plan(old_tree), handler, output)
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


def test_unchanged_images_need_no_trunk(old_tree, store, tmp_path):
  counters = embed(plan(old_tree), _NO_TRUNK, tmp_path / "out", [store])
  check_same(tmp_path / "out", store, computed=0)
  assert counters["bottlenecks_reused"] == 60
  assert "bottlenecks_computed" not in counters


def test_new_edited_renamed_double_and_bad_images(new_tree, cold, store, handler, tmp_path):
  before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in store.rglob("*") if path.is_file()}
  counters = embed(plan(new_tree), handler, tmp_path / "out", [store])
  # ant/3 was edited, eleven are new, fourteen are one.
  check_same(tmp_path / "out", cold, computed=13)
  assert (counters["bottlenecks_computed"], counters["bottlenecks_reused"]) == (13, 83 - 13)
  assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == {**before}
  assert "records/" in str(sorted(before)), "nothing was compared"
  quarantined = [line.split(",")[0] for line in (cold / "quarantine.csv").read_text().splitlines()[1:]]
  assert len(quarantined) == 9


def test_new_images_are_worked_in_full_batches(new_tree, store, handler, tmp_path):
  embed(plan(new_tree), handler, tmp_path / "out", [store])
  fresh = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / ".fresh" / ".shards").iterdir())]
  # 13 good ones and 3 bad, each once, of two splits, in shards of up to 8.
  assert sum(report["inputs"] for report in fresh) == 16
  assert len(fresh) <= 4


def test_without_any_store_each_distinct_image_is_computed_once(new_tree, cold, handler, tmp_path):
  counters = embed(plan(new_tree), handler, tmp_path / "out", [])
  distinct = len(set(today().values())) - 3
  check_same(tmp_path / "out", cold, computed=distinct)
  assert counters["bottlenecks_computed"] == distinct


def test_two_processes_write_the_same(new_tree, cold, store, handler, tmp_path):
  embed(plan(new_tree), handler, tmp_path / "out", [store], flags=_TWO_PROCESSES)
  check_same(tmp_path / "out", cold, computed=13)


def test_several_stores_complement_each_other(new_tree, cold, store, handler, tmp_path):
  some = {key: encoded for key, encoded in today().items() if "new" in key}
  embed(plan(write(tmp_path / "some", some)), handler, tmp_path / "second")
  embed(plan(new_tree), handler, tmp_path / "out", [tmp_path / "second", store])
  check_same(tmp_path / "out", cold, computed=2)


def test_other_labels_number_the_classes_anew(old_tree, store, handler, tmp_path):
  labels = ["aardvark", *_LABELS]
  embed(plan(old_tree), handler, tmp_path / "cold", labels=labels)
  embed(plan(old_tree), _NO_TRUNK, tmp_path / "out", [store], labels=labels)
  check_same(tmp_path / "out", tmp_path / "cold", computed=0)


def test_a_image_that_is_too_large_today_is_quarantined_although_it_is_stored(old_tree, store, tiny_trunk, tmp_path):
  strict = ImageModelHandler(str(tiny_trunk), batch_size=4, max_pixels=300)
  embed(plan(old_tree), strict, tmp_path / "cold")
  embed(plan(old_tree), strict, tmp_path / "out", [store])
  check_same(tmp_path / "out", tmp_path / "cold", computed=0)
  assert ",TOO_LARGE," in (tmp_path / "out" / "quarantine.csv").read_text()


def write_idx(folder: Path, pixels: np.ndarray, labels: np.ndarray, gz: bool = False) -> Path:
  folder.mkdir()
  for name, some in (("train", slice(0, 25)), ("t10k", slice(25, None))):
    for kind, array in (("images-idx3", pixels[some]), ("labels-idx1", labels[some])):
      data = encode_idx(array)
      path = folder / f"{name}-{kind}-ubyte{'.gz' if gz else ''}"
      path.write_bytes(gzip.compress(data, mtime=0) if gz else data)
  return folder


_DIGITS = [str(number) for number in range(10)]
_PIXELS = np.random.default_rng(9).integers(0, 256, (45, 11, 13), dtype=np.uint8)
_BYTES = (np.arange(45) % 10).astype(np.uint8)


def pixels_of_today() -> np.ndarray:
  pixels = _PIXELS.copy()
  for number in (3, 4, 5, 20, 30):
    pixels[number] = 255 - pixels[number]
  pixels[7] = pixels[40] = pixels[3]
  return pixels


@pytest.mark.parametrize("gz", [False, True])
def test_idx_files(handler, tmp_path, gz):
  old = write_idx(tmp_path / "old", _PIXELS, _BYTES)
  new = write_idx(tmp_path / "new", pixels_of_today(), _BYTES, gz)
  embed(plan_idx(old), handler, tmp_path / "store", labels=_DIGITS)
  embed(plan_idx(new), handler, tmp_path / "cold", labels=_DIGITS)
  embed(plan_idx(new), handler, tmp_path / "out", [tmp_path / "store"], labels=_DIGITS)
  check_same(tmp_path / "out", tmp_path / "cold", computed=5)


def test_records(handler, tmp_path):
  old = write_idx(tmp_path / "old", _PIXELS, _BYTES)
  new = write_idx(tmp_path / "new", pixels_of_today(), _BYTES)
  for folder in (old, new):
    flags = (f"--input={folder}", f"--output={folder}_records", "--formats=tfrecord", "--runner=FnApiRunner")
    assert convert(flags) == 0
  yesterdays, todays = plan_records(tmp_path / "old_records"), plan_records(tmp_path / "new_records")
  embed(yesterdays, handler, tmp_path / "store", labels=_DIGITS)
  embed(todays, handler, tmp_path / "cold", labels=_DIGITS)
  embed(todays, handler, tmp_path / "out", [tmp_path / "store"], labels=_DIGITS)
  check_same(tmp_path / "out", tmp_path / "cold", computed=5)


def plan_files(tree: Path, *shards: Sequence[str], modified_secs: float = 1.0) -> Plan:
  """Shards of files of a tree, as they were planned when the files were there."""
  planned = [
    Shard(
      "training",
      number,
      len(shards),
      tuple(ImageFile(key, key.split("/")[0], str(tree / key), 10, modified_secs) for key in keys),
    )
    for number, keys in enumerate(shards)
  ]
  return lambda: beam.Create(planned)


def test_a_file_that_vanished_since_it_was_planned(handler, tmp_path):
  tree = write(tmp_path / "tree", {"ant/0": image(1), "ant/1": image(2), "bee/3": image(1)})
  planned = plan_files(tree, ("ant/0", "ant/1"), ("bee/2", "bee/3"))
  embed(planned, handler, tmp_path / "cold")
  embed(planned, handler, tmp_path / "out", [])
  check_same(tmp_path / "out", tmp_path / "cold", computed=2)
  assert "bee/2,training,10,UNREADABLE," in (tmp_path / "out" / "quarantine.csv").read_text()


@pytest.mark.parametrize("becomes", [None, image(99)])
def test_a_file_that_goes_or_changes_after_it_was_hashed(handler, tmp_path, monkeypatch, becomes: bytes | None):
  tree = write(tmp_path / "tree", {"ant/0": image(1), "ant/1": image(2), "bee/2": image(1)})

  def read_then_change(shard, labels):
    yield from read_images(shard, labels)
    (tree / "ant/0").unlink()
    if becomes:
      (tree / "ant/0").write_bytes(becomes)

  keys = ("ant/0", "ant/1", "bee/2")
  with monkeypatch.context() as patched:
    patched.setattr(beam_retrain.transforms.bottlenecks.reuse, "read_images", read_then_change)
    embed(plan_files(tree, keys), handler, tmp_path / "out", [])
  # The double of it has nothing to be computed from either: both are left to the next run.
  quarantine = (tmp_path / "out" / "quarantine.csv").read_text().splitlines()[1:]
  size = str(len(image(1)))
  expected = [[key, "training", size, "UNREADABLE"] for key in ("ant/0", "bee/2")]
  assert [line.split(",")[:4] for line in quarantine] == expected
  assert "run the command again" in quarantine[0]

  write(tree, {"ant/0": image(1)})
  planned = plan_files(tree, keys, modified_secs=2.0)
  embed(planned, handler, tmp_path / "out", [])
  embed(planned, handler, tmp_path / "cold")
  check_same(tmp_path / "out", tmp_path / "cold", computed=2)


def cut_short(path: Path, start: int) -> None:
  os.truncate(path, start + 20)


def flip(path: Path, start: int) -> None:
  data = bytearray(path.read_bytes())
  data[start + 100] ^= 1
  path.write_bytes(data)


def lead_nowhere(path: Path, _: int) -> None:
  path.unlink()
  path.symlink_to("gone")


@pytest.mark.parametrize(
  ("damage", "lost", "said"),
  [
    (cut_short, slice(2, None), "ends inside the record that starts at byte {start}"),
    (flip, slice(2, None), "is damaged: the record at byte {start} has a wrong data checksum"),
    (lead_nowhere, slice(None), "cannot be read: No such file or directory"),
  ],
)
def test_what_is_damaged_in_a_store_is_computed_anew(old_tree, store, handler, tmp_path, capsys, damage, lost, said):
  damaged = tmp_path / "damaged"
  shutil.copytree(store, damaged)
  path = sorted((damaged / "records").glob("*.tfrecord"))[0]
  starts = [start for _, start in locate_bottlenecks(str(path))]
  assert len(starts) > 3
  damage(path, starts[2])
  embed(plan(old_tree), handler, tmp_path / "out", [damaged])
  check_same(tmp_path / "out", store, computed=len(starts[lost]))
  what = said.format(start=starts[2])
  assert capsys.readouterr().err.splitlines() == [
    f"beam-retrain: {path} {what}: the bottlenecks that it has from there on are computed anew."
  ]


def test_a_store_that_changes_while_it_is_read_gives_no_wrong_vector(store, tmp_path):
  path = sorted((store / "records").glob("*.tfrecord"))[0]
  with path.open("rb") as file:
    found = describe_bottleneck(next(read_records(file, path.name)))
  task = AssembleShard(_LABELS, 10**9, str(tmp_path))
  task.setup()
  wanted = StoredBottleneck(found.key, found.label, 9, found.sha256, str(path), 0, False)
  (written,) = task.work(Shard("training", 0, 1, (wanted,)))
  assert found.key.encode() in written.payload
  with pytest.raises(InputError, match=f"{path} was changed while it was read: run the command again"):
    list(task.work(Shard("training", 0, 1, (wanted._replace(sha256="0" * 64),))))
  copy = tmp_path / "copy.tfrecord"
  moved = Shard("training", 0, 1, (wanted._replace(path=str(copy)),))
  for damage in (cut_short, flip, lead_nowhere):
    copy.write_bytes(path.read_bytes())
    damage(copy, 0)
    with pytest.raises(InputError, match=f"{copy} was changed while it was read: run the command again"):
      list(task.work(moved))


def test_images_are_read_only_once_the_plan_is_checked(old_tree, store, tmp_path):
  """In the graph: a runner is free to try another order only where nothing waits."""
  pipeline = beam.Pipeline(options=options())
  shards = pipeline | "Plan" >> plan(old_tree)()
  checked = shards | "Check" >> beam.Map(lambda shard: shard.split)
  _ = shards | EmbedOnlyNew(
    handler=_NO_TRUNK,
    labels=_LABELS,
    stores=[str(store)],
    output=str(tmp_path / "records"),
    fresh_folder=str(tmp_path / ".fresh"),
    request="request",
    checked=checked,
  )
  waiting = []

  class Visitor(beam.pipeline.PipelineVisitor):
    def visit_transform(self, transform_node):
      if any(side.pvalue is checked for side in transform_node.side_inputs):
        waiting.append(transform_node.full_label)

  pipeline.visit(Visitor())
  assert waiting == ["EmbedOnlyNew/HashShard/ParDo(_HashShard)"]


def forget(output: Path, keep: Callable[[int], bool]) -> None:
  """As after a kill: some shards are not there, nor is what is written last."""
  for number, path in enumerate(sorted((output / "records").glob("*.tfrecord"))):
    if not keep(number):
      path.unlink()
      (output / "records" / REPORTS_FOLDER / f"{path.name}.json").unlink()
  (output / "stats.json").unlink()


def test_a_run_that_was_killed_keeps_what_it_had_computed(handler, tiny_trunk, tmp_path):
  tree = write(tmp_path / "tree", {f"{_LABELS[n % 3]}/{n}.png": image(n) for n in range(800)})
  output = tmp_path / "out"
  code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_reuse import ImageModelHandler, embed, plan
embed(plan(Path({str(tree)!r})), ImageModelHandler({str(tiny_trunk)!r}, batch_size=4), Path({str(output)!r}), [])
"""
  process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3], start_new_session=True)
  deadline = time.monotonic() + 120
  while not list((output / ".fresh" / REPORTS_FOLDER).glob("*.json")):
    assert process.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.005)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  done = len(list((output / ".fresh" / REPORTS_FOLDER).glob("*.json")))
  assert not list((output / "records").glob("*.tfrecord"))
  counters = embed(plan(tree), handler, output, [])
  assert counters["shards_kept"] >= done
  assert 0 < counters["bottlenecks_computed"] < 800
  embed(plan(tree), handler, tmp_path / "cold")
  check_same(output, tmp_path / "cold", computed=800)


def test_a_run_that_was_killed_while_assembling_computes_nothing_again(new_tree, cold, store, handler, tmp_path):
  output = tmp_path / "out"
  embed(plan(new_tree), handler, output, [store])
  forget(output, lambda number: number % 3 == 0)
  kept = {path: path.stat().st_mtime_ns for path in (output / "records").glob("*.tfrecord")}
  counters = embed(plan(new_tree), _NO_TRUNK, output, [store])
  check_same(output, cold, computed=13)
  assert "bottlenecks_computed" not in counters
  assert kept
  assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_run_that_was_killed_without_reuse_goes_on_with_it(new_tree, cold, store, handler, tmp_path):
  output = tmp_path / "out"
  shutil.copytree(cold, output)
  forget(output, lambda number: number % 2 == 0)
  kept = {path: path.stat().st_mtime_ns for path in (output / "records").glob("*.tfrecord")}
  counters = embed(plan(new_tree), handler, output, [store])
  assert contents(output).keys() == contents(cold).keys()
  assert {path.name: path.read_bytes() for path in (output / "records").glob("*.tfrecord")} == {
    path.name: path.read_bytes() for path in (cold / "records").glob("*.tfrecord")
  }
  assert {path: path.stat().st_mtime_ns for path in kept} == kept
  # Of what was finished nothing is computed again: the double image is in there.
  assert counters.get("bottlenecks_computed", 0) < 13
  assert counters["shards_kept"] == len(kept)


def test_a_run_that_was_killed_with_reuse_goes_on_without_it(new_tree, cold, store, handler, tmp_path):
  output = tmp_path / "out"
  embed(plan(new_tree), handler, output, [store])
  forget(output, lambda number: number % 2 == 0)
  kept = {path: path.stat().st_mtime_ns for path in (output / "records").glob("*.tfrecord")}
  embed(plan(new_tree), handler, output)
  assert reports(output) == reports(cold)
  assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_random_nights_against_plain_sets(handler, tmp_path):
  rng = np.random.default_rng(5)
  encoded = [image(seed) for seed in range(30)]
  for night in range(3):
    old, new = (
      {f"{_LABELS[rng.integers(3)]}/{n}.png": encoded[rng.integers(30)] for n in rng.choice(40, count, replace=False)}
      | {f"{label}/always": image(50 + number) for number, label in enumerate(_LABELS)}
      for count in (rng.integers(3, 30), rng.integers(3, 40))
    )
    folder = tmp_path / str(night)
    embed(plan(write(folder / "old", old)), handler, folder / "store")
    tree = write(folder / "new", new)
    embed(plan(tree), handler, folder / "cold")
    embed(plan(tree), handler, folder / "out", [folder / "store"])
    check_same(folder / "out", folder / "cold", computed=len(set(new.values()) - set(old.values())))


# The parts.


def test_equal_images_have_one_owner_whatever_the_order():
  a, b, c = b"a" * 32, b"b" * 32, b"c" * 32
  met = [
    Hashed("s1", [(a, 0), (b, 1), (a, 2)]),
    Stored(1, "/two", [(b, 70)]),
    Hashed("s0", [(a, 5), (c, 6)]),
    Stored(0, "/one", [(b, 90), (b, 30)]),
    Stored(sys.maxsize, "/own", [(c, 10), (b, 0)]),
  ]
  expected = {
    "s1": [Place(0, "s0", None, False), Place(1, "/one", 30, False), Place(2, "s0", None, False)],
    "s0": [Place(5, "s0", None, True), Place(6, "/own", 10, True)],
  }
  for order in (met, met[::-1]):
    assert {shard: sorted(matched.places) for shard, matched in match(order)} == expected


def test_neighbours_share_a_fresh_shard_until_it_is_full():
  counts = [("training", f"t{n}", count) for n, count in enumerate([3, 4, 2, 10, 1, 7])] + [("testing", "e0", 9)]
  expected = {
    **{"t0": ("training", 0, 4), "t1": ("training", 0, 4), "t2": ("training", 1, 4)},
    **{"t3": ("training", 2, 4), "t4": ("training", 3, 4), "t5": ("training", 3, 4)},
    "e0": ("testing", 0, 1),
  }
  assert pack(counts, 8) == pack(counts[::-1], 8) == expected
  assert pack([], 8) == {}


@pytest.mark.parametrize(("shards", "buckets"), [(0, 1), (1, 1), (2, 2), (4, 2), (5, 3), (100, 10), (101, 11)])
def test_as_many_buckets_as_the_root_of_the_shards(shards, buckets):
  assert bucket_count(shards) == buckets


def test_bad_images_alone_load_no_trunk(tmp_path):
  tree = write(tmp_path / "tree", {"ant/0": b"", "bee/0": b"text"})
  embed(plan(tree), _NO_TRUNK, tmp_path / "out", [])
  assert json.loads((tmp_path / "out" / "stats.json").read_text())["quarantined"] == 2


def test_a_trunk_that_cannot_be_loaded_is_no_images_fault(tmp_path):
  tree = write(tmp_path / "tree", {"ant/0": image(1), "bee/0": image(2)})
  with pytest.raises(Exception, match="does not see the folder /nowhere/trunk"):
    embed(plan(tree), _NO_TRUNK, tmp_path / "out", [])


def test_without_new_images_tensorflow_is_not_loaded(old_tree, store, tmp_path):
  code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_reuse import _NO_TRUNK, embed, plan
embed(plan(Path({str(old_tree)!r})), _NO_TRUNK, Path({str(tmp_path / "out")!r}), [Path({str(store)!r})])
print("loaded", [name for name in ("tensorflow", "keras") if name in sys.modules])
"""
  ended = subprocess.run(
    [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
  )
  assert ended.stdout.splitlines()[-1:] == ["loaded []"], ended.stderr[-2000:]


# As a user runs it.


def arguments(tree: Path, trunk: Path, output: Path, *more: str) -> list[str]:
  return [f"--input={tree}", f"--trunk={trunk}", f"--output={output}", "--runner=FnApiRunner", *more]


def test_the_command_says_what_was_reused(small_images, bottlenecks_folder, tiny_trunk, tmp_path, capsys):
  tree = tmp_path / "tree"
  shutil.copytree(small_images, tree)
  new = {"black/new.png": image(7), "white/new.png": image(8), "white/40.png": image(8)}
  write(tree, {**new, "grey/bad.jpg": image(9, "JPEG")[:-90]})
  output = tmp_path / "out"
  flags = arguments(tree, tiny_trunk, output, f"--reuse={bottlenecks_folder}")
  line = f"121 of 123 bottlenecks reused from {bottlenecks_folder}, 2 computed\n"
  assert run(flags) == 3
  assert line in capsys.readouterr().out
  assert not (output / "COMPLETED").exists()
  fresh = {path: path.stat().st_mtime_ns for path in (output / ".fresh").glob("*.tfrecord")}
  assert fresh  # the next run goes on from it

  assert run([*flags, "--max_bad_fraction=0.1"]) == 0
  assert line in capsys.readouterr().out
  assert not (output / ".fresh").exists()
  keys = [key for path in (output / "records").glob("*.tfrecord") for key in keys_of(path)]
  good = [path.relative_to(tree).as_posix() for path in tree.glob("*/*") if path.name != "bad.jpg"]
  assert sorted(keys) == sorted(good)


def test_the_folder_to_reuse_is_not_the_one_to_write(small_images, bottlenecks_folder, tiny_trunk, tmp_path):
  output = tmp_path / "out"
  shutil.copytree(bottlenecks_folder, output)
  for store in (output, tmp_path):
    with pytest.raises(InputError, match="overlaps with --reuse"):
      run(arguments(small_images, tiny_trunk, output, f"--reuse={store}"))
  assert (output / "COMPLETED").exists()


def test_another_trunks_bottlenecks_are_refused_before_anything_is_touched(
  small_images, bottlenecks_folder, tiny_trunk, tmp_path
):
  other = tmp_path / "other"
  shutil.copytree(bottlenecks_folder, other)
  info = json.loads((other / "info.json").read_text())
  info["trunk"]["fingerprint"] = "0123456789abcdef" * 4
  (other / "info.json").write_text(json.dumps(info))
  with pytest.raises(InputError, match=r"are of another trunk \(.*, 0123456789ab\) than today's \([0-9a-f]{12}\)"):
    run(arguments(small_images, tiny_trunk, tmp_path / "out", f"--reuse={bottlenecks_folder}", f"--reuse={other}"))
  assert not (tmp_path / "out").exists()


def keys_of(path: Path) -> list[str]:
  with path.open("rb") as file:
    return [describe_bottleneck(record).key for record in read_records(file, path.name)]
