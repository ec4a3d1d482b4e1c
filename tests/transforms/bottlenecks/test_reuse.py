"""Reused bottlenecks: the same bytes as without reuse, and the trunk runs over new images only."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from beam_retrain.pipelines.bottlenecks import run
from beam_retrain.pipelines.convert import run as convert
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.reuse import Hashed, Place, Stored, assign_fresh, bucket_count, match
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.shards import unpack
from beam_retrain.transforms.shards.progress import read_planned
from tests.helpers import ROOT
from tests.transforms.bottlenecks.reuse_suite import (
  LABELS,
  NO_TRUNK,
  arguments,
  check_same,
  cold,
  embed,
  handler,
  keys_of,
  new_tree,
  noise_image,
  old_tree,
  plan,
  plan_idx,
  plan_records,
  store,
  today,
  write,
  write_idx,
)

__all__ = ["cold", "handler", "new_tree", "old_tree", "store"]  # fixtures


def test_unchanged_images_need_no_trunk(old_tree, store, tmp_path):
  counters = embed(plan(old_tree), NO_TRUNK, tmp_path / "out", [store])
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
  fresh = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / ".fresh" / ".shards").glob("*.json"))]
  # 13 good ones and 3 bad, each once, of two splits, in shards of up to 8.
  assert sum(report["inputs"] for report in fresh) == 16
  assert len(fresh) <= 4
  assert read_planned(str(tmp_path / "out" / ".fresh" / ".shards")) == 16  # so that the progress line shows the total


def test_without_any_store_each_distinct_image_is_computed_once(new_tree, cold, handler, tmp_path):
  counters = embed(plan(new_tree), handler, tmp_path / "out", [])
  distinct = len(set(today().values())) - 3
  check_same(tmp_path / "out", cold, computed=distinct)
  assert counters["bottlenecks_computed"] == distinct


def test_several_stores_complement_each_other(new_tree, cold, store, handler, tmp_path):
  some = {key: encoded for key, encoded in today().items() if "new" in key}
  embed(plan(write(tmp_path / "some", some)), handler, tmp_path / "second")
  embed(plan(new_tree), handler, tmp_path / "out", [tmp_path / "second", store])
  check_same(tmp_path / "out", cold, computed=2)


def test_other_labels_number_the_classes_anew(old_tree, store, handler, tmp_path):
  labels = ["aardvark", *LABELS]
  embed(plan(old_tree), handler, tmp_path / "cold", labels=labels)
  embed(plan(old_tree), NO_TRUNK, tmp_path / "out", [store], labels=labels)
  check_same(tmp_path / "out", tmp_path / "cold", computed=0)


def test_an_image_that_is_too_large_today_is_quarantined_although_it_is_stored(old_tree, store, tiny_trunk, tmp_path):
  strict = ImageModelHandler(str(tiny_trunk), batch_size=4, max_pixels=300)
  embed(plan(old_tree), strict, tmp_path / "cold")
  embed(plan(old_tree), strict, tmp_path / "out", [store])
  check_same(tmp_path / "out", tmp_path / "cold", computed=0)
  assert ",TOO_LARGE," in (tmp_path / "out" / "quarantine.csv").read_text()


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
    flags = (f"--input={folder}", f"--output={folder}_records", "--formats=tfrecord")
    assert convert(flags) == 0
  yesterdays, todays = plan_records(tmp_path / "old_records"), plan_records(tmp_path / "new_records")
  embed(yesterdays, handler, tmp_path / "store", labels=_DIGITS)
  embed(todays, handler, tmp_path / "cold", labels=_DIGITS)
  embed(todays, handler, tmp_path / "out", [tmp_path / "store"], labels=_DIGITS)
  check_same(tmp_path / "out", tmp_path / "cold", computed=5)


def test_random_nights_against_plain_sets(handler, tmp_path):
  rng = np.random.default_rng(5)
  encoded = [noise_image(seed) for seed in range(30)]
  for night in range(3):
    old, new = (
      {f"{LABELS[rng.integers(3)]}/{n}.png": encoded[rng.integers(30)] for n in rng.choice(40, count, replace=False)}
      | {f"{label}/always": noise_image(50 + number) for number, label in enumerate(LABELS)}
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
    assert {shard: sorted(unpack(places)) for shard, places in match(order)} == expected


def test_neighbours_share_a_fresh_shard_until_it_is_full():
  counts = [("training", f"t{n}", count) for n, count in enumerate([3, 4, 2, 10, 1, 7])] + [("testing", "e0", 9)]
  expected = {
    **{"t0": ("training", 0, 4), "t1": ("training", 0, 4), "t2": ("training", 1, 4)},
    **{"t3": ("training", 2, 4), "t4": ("training", 3, 4), "t5": ("training", 3, 4)},
    "e0": ("testing", 0, 1),
  }
  assert assign_fresh(counts, 8) == assign_fresh(counts[::-1], 8) == expected
  assert assign_fresh([], 8) == {}


@pytest.mark.parametrize(("shards", "buckets"), [(0, 1), (1, 1), (2, 2), (4, 2), (5, 3), (100, 10), (101, 11)])
def test_as_many_buckets_as_the_root_of_the_shards(shards, buckets):
  assert bucket_count(shards) == buckets


def test_bad_images_alone_load_no_trunk(tmp_path):
  tree = write(tmp_path / "tree", {"ant/0": b"", "bee/0": b"text"})
  embed(plan(tree), NO_TRUNK, tmp_path / "out", [])
  assert json.loads((tmp_path / "out" / "stats.json").read_text())["quarantined"] == 2


def test_a_trunk_that_cannot_be_loaded_is_no_images_fault(tmp_path):
  tree = write(tmp_path / "tree", {"ant/0": noise_image(1), "bee/0": noise_image(2)})
  with pytest.raises(Exception, match="does not see the folder /nowhere/trunk"):
    embed(plan(tree), NO_TRUNK, tmp_path / "out", [])


def test_without_new_images_tensorflow_is_not_loaded(old_tree, store, tmp_path):
  code = f"""
import sys
from pathlib import Path
from tests.transforms.bottlenecks.reuse_suite import NO_TRUNK, embed, plan
embed(plan(Path({str(old_tree)!r})), NO_TRUNK, Path({str(tmp_path / "out")!r}), [Path({str(store)!r})])
print("loaded", [name for name in ("tensorflow", "keras") if name in sys.modules])
"""
  ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
  assert ended.stdout.splitlines()[-1:] == ["loaded []"], ended.stderr[-2000:]


def test_the_command_says_what_was_reused(small_images, bottlenecks_folder, tiny_trunk, tmp_path, capsys):
  tree = tmp_path / "tree"
  shutil.copytree(small_images, tree)
  new = {"black/new.png": noise_image(7), "white/new.png": noise_image(8), "white/40.png": noise_image(8)}
  write(tree, {**new, "grey/bad.jpg": noise_image(9, "JPEG")[:-90]})
  output = tmp_path / "out"
  flags = arguments(tree, tiny_trunk, output, f"--reuse={bottlenecks_folder}")
  line = f"121 of 123 bottlenecks reused from {bottlenecks_folder}, 2 computed\n"
  assert run(flags) == 3
  assert line in capsys.readouterr().out
  assert not (output / "COMPLETED").exists()
  fresh = {path: path.stat().st_mtime_ns for path in (output / ".fresh").glob("*.tfrecord")}
  assert fresh  # the next run goes on from it
  assert not list(output.rglob("*.tmp-*"))

  assert run([*flags, "--max_bad_fraction=0.1"]) == 0
  assert line in capsys.readouterr().out
  assert not (output / ".fresh").exists()
  keys = [key for path in (output / "records").glob("*.tfrecord") for key in keys_of(path)]
  good = [path.relative_to(tree).as_posix() for path in tree.glob("*/*") if path.name != "bad.jpg"]
  assert sorted(keys) == sorted(good)


def test_the_folder_to_reuse_is_not_the_one_to_write(small_images, bottlenecks_folder, tiny_trunk, tmp_path):
  output = tmp_path / "out"
  shutil.copytree(bottlenecks_folder, output)
  for other in (output, tmp_path):
    with pytest.raises(InputError, match="overlaps with --reuse"):
      run(arguments(small_images, tiny_trunk, output, f"--reuse={other}"))
  assert (output / "COMPLETED").exists()


def test_another_trunks_bottlenecks_are_refused_before_anything_is_touched(
  small_images, bottlenecks_folder, tiny_trunk, tmp_path
):
  other = tmp_path / "other"
  shutil.copytree(bottlenecks_folder, other)
  info = json.loads((other / "info.json").read_text())
  info["trunk"]["fingerprint"] = "0123456789abcdef" * 4
  (other / "info.json").write_text(json.dumps(info))
  with pytest.raises(InputError, match=r"of another trunk \(.*, 0123456789ab\) than the current one \([0-9a-f]{12}\)"):
    run(arguments(small_images, tiny_trunk, tmp_path / "out", f"--reuse={bottlenecks_folder}", f"--reuse={other}"))
  assert not (tmp_path / "out").exists()
