"""The split audit of real digits with planted doubles, against a plain loop: each kind of input; warn, drop, fail."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from beam_retrain.transforms.bottlenecks.store import record_files
from beam_retrain.transforms.core.records.quarantine import OnLeak
from beam_retrain.transforms.core.records.splits import SplitPercentages
from tests.helpers import file_contents, read_csv
from tests.transforms.leaks.audit_suite import (
  HEADER,
  NO_TRUNK,
  TESTING,
  TRAINING,
  TWO_PROCESSES,
  audit_images,
  check_against_plain_loop,
  class_folders,
  converted,
  digits,
  dropped,
  embed,
  handler,
  idx_folder,
  plain_counts,
  plain_leaks,
  read_converted,
  read_folders,
  read_idx,
  read_output,
  trunk_folder,
  warned,
  write_idx,
)

__all__ = [
  "class_folders",
  "converted",
  "digits",
  "dropped",
  "handler",
  "idx_folder",
  "trunk_folder",
  "warned",
]  # fixtures

# The audit, on each kind of input.


def test_the_planted_ones_are_of_every_kind(digits):
  """Of what the other tests find: else they would show less than they say."""
  images = {image.key: image for image in read_idx(digits)}
  rows, conflicting, leaked = plain_leaks(images.values())
  counts = plain_counts(rows)
  assert counts["different_labels"]["images"] > 80
  assert counts["training_and_testing"]["images"] > 150
  kinds, splits, shards = defaultdict(set), defaultdict(set), defaultdict(list)
  for kind, digest, key, split, _ in rows:
    kinds[digest].add(kind)
    splits[digest].add(split)
    if kind == rows[0][0]:
      shards[digest].append((images[key].given, int(Path(key).stem) // 1024))
  assert {frozenset(found) for found in kinds.values()} == {
    frozenset({"different_labels"}),
    frozenset({"training_and_testing"}),
    frozenset({"different_labels", "training_and_testing"}),
  }
  assert {frozenset({"validation", "testing"}), frozenset({"training", "validation", "testing"})} <= {
    frozenset(found) for found in splits.values()
  }
  assert any(len(set(found)) == 1 for found in shards.values()), "none within one shard"
  assert any(len(set(found)) > 2 for found in shards.values()), "none over three shards"
  assert leaked
  doubles = len(images) - len({image.encoded for image in images.values()})
  assert doubles > len(conflicting | leaked) / 2
  same = {row[1] for row in rows}
  groups = defaultdict(list)
  for image in images.values():
    groups[hashlib.sha256(image.encoded).hexdigest()].append(image)
  assert any(len(copies) > 1 and digest not in same for digest, copies in groups.items()), "no harmless doubles"


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_idx_files(digits, idx_folder, tmp_path, packed):
  path = write_idx(tmp_path / "packed", digits, packed=True) if packed else idx_folder
  check_against_plain_loop(read_idx(digits), *audit_images(path, tmp_path / "out"))


def test_class_folders(class_folders, tmp_path):
  check_against_plain_loop(read_folders(class_folders), *audit_images(class_folders, tmp_path / "out"))


def test_records(converted, tmp_path):
  check_against_plain_loop(read_converted(converted), *audit_images(converted, tmp_path / "out"))


def test_class_folders_in_split_folders(converted, tmp_path):
  root = tmp_path / "tree"
  for split in ("training", "testing"):
    shutil.copytree(converted / split, root / split)
  check_against_plain_loop(read_folders(root, has_splits=True), *audit_images(root, tmp_path / "out"))


def test_a_manifest_that_names_all_splits(class_folders, tmp_path):
  percentages = SplitPercentages(validation=0)
  splits = ("training", "training", "validation", "testing")
  images = [
    image._replace(key=f"{class_folders.name}/{image.key}", given=splits[number % 4], percentages=percentages)
    for number, image in enumerate(read_folders(class_folders))
  ]
  path = class_folders.parent / "data.csv"
  with path.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["label", "file_name", "split"])
    writer.writerows([image.label, image.key, image.given] for image in images)
    writer.writerow([images[0].label, "gone.png", "validation"])
  rows, fates = audit_images(path, tmp_path / "out", percentages)
  assert fates.pop("gone.png") == "UNREADABLE"
  check_against_plain_loop(images, rows, fates)
  assert {"validation", "testing"} < {row[3] for row in rows}


# warn and drop, as the stage's job.


def test_warn_lists_and_counts_and_changes_nothing(digits, warned, tmp_path):
  rows, _, _ = plain_leaks(read_idx(digits))
  assert read_csv(warned / "leaks.csv") == [HEADER, *rows]
  stats = json.loads((warned / "stats.json").read_text())
  assert stats["leaks"] == plain_counts(rows)
  assert (stats["outputs"], stats["quarantined"]) == (TRAINING + TESTING, 0)


def test_drop_leaves_out_what_the_plain_loop_would(digits, warned, dropped):
  images = read_idx(digits)
  _, conflicting, leaked = plain_leaks(images)
  gone = conflicting | leaked
  # The records of warn without the dropped ones, byte for byte, in the same order.
  assert read_output(dropped) == {
    name: [(key, record) for key, record in records if key not in gone] for name, records in read_output(warned).items()
  }
  assert (dropped / "leaks.csv").read_bytes() == (warned / "leaks.csv").read_bytes()
  before, stats = (json.loads((folder / "stats.json").read_text()) for folder in (warned, dropped))
  assert stats["leaks"] == before["leaks"]
  assert stats["reasons"] == {"CONFLICTING_LABELS": len(conflicting), "LEAKED": len(leaked)}
  assert stats["bad_fraction"] == 0.0
  for split in ("training", "testing"):
    of_split = sum(key.startswith(f"{split}/") for key in gone)
    assert stats["splits"][split]["inputs"] == before["splits"][split]["inputs"]
    assert stats["splits"][split]["quarantined"] == of_split
    assert stats["splits"][split]["outputs"] == stats["splits"][split]["inputs"] - of_split
  _, *quarantine = read_csv(dropped / "quarantine.csv")
  assert [row[:4] for row in quarantine] == [
    [
      image.key,
      image.given,
      str(len(image.encoded)),
      "CONFLICTING_LABELS" if image.key in conflicting else "LEAKED",
    ]
    for image in sorted(images, key=lambda image: (image.given, image.key))
    if image.key in gone
  ]


def test_after_dropping_nothing_leaks(dropped, digits):
  kept = {key for records in read_output(dropped).values() for key, _ in records}
  rows, _, _ = plain_leaks(image for image in read_idx(digits) if image.key in kept)
  assert rows == []


def test_drop_with_reuse_writes_the_same_and_computes_nothing(idx_folder, warned, dropped, tmp_path):
  output = embed(idx_folder, NO_TRUNK, tmp_path / "out", OnLeak.DROP, [warned])
  assert read_output(output) == read_output(dropped)
  for name in ("leaks.csv", "quarantine.csv"):
    assert (output / name).read_bytes() == (dropped / name).read_bytes()
  stats = json.loads((output / "stats.json").read_text())
  assert stats.pop("bottlenecks") == {"computed": 0, "reused": stats["outputs"]}
  expected = json.loads((dropped / "stats.json").read_text())
  assert stats == {name: value for name, value in expected.items() if name != "bottlenecks"}


def test_warn_with_reuse_audits_too(idx_folder, warned, tmp_path):
  output = embed(idx_folder, NO_TRUNK, tmp_path / "out", OnLeak.WARN, [warned])
  assert (output / "leaks.csv").read_bytes() == (warned / "leaks.csv").read_bytes()
  assert json.loads((output / "stats.json").read_text())["leaks"]["different_labels"]["groups"] > 0


def test_records_are_dropped_with_reuse_too(converted, handler, tmp_path):
  """Of a file of records only some are picked; of those, reuse picks again."""
  _, conflicting, leaked = plain_leaks(read_converted(converted))
  cold = embed(converted, handler, tmp_path / "cold", OnLeak.DROP)
  stores = tmp_path / "store"
  shutil.copytree(cold, stores)
  for number, path in enumerate(record_files(str(stores))):
    if number % 2:
      Path(path).unlink()
  output = embed(converted, handler, tmp_path / "out", OnLeak.DROP, [stores])
  assert read_output(output) == read_output(cold)
  keys = sorted(key for records in read_output(cold).values() for key, _ in records)
  assert keys == sorted({image.key for image in read_converted(converted)} - conflicting - leaked)
  counts = json.loads((output / "stats.json").read_text())["bottlenecks"]
  assert counts["computed"] > 500
  assert counts["reused"] > 500


@pytest.mark.parametrize("on_leak", [OnLeak.WARN, OnLeak.DROP])
def test_a_killed_run_goes_on(idx_folder, warned, dropped, handler, tmp_path, on_leak):
  whole = warned if on_leak == OnLeak.WARN else dropped
  output = tmp_path / "out"
  shutil.copytree(whole, output)
  gone, *kept = record_files(str(output))
  Path(gone).unlink()
  for name in ("stats.json", "leaks.csv", "quarantine.csv"):
    (output / name).unlink()
  times = {path: Path(path).stat().st_mtime_ns for path in kept}
  embed(idx_folder, handler, output, on_leak)
  assert {path: Path(path).stat().st_mtime_ns for path in kept} == times
  assert file_contents(output) == file_contents(whole)


def test_two_processes_write_the_same_reusing_what_is_there(idx_folder, warned, dropped, handler, tmp_path):
  some = Path(shutil.copytree(warned, tmp_path / "some"))
  Path(record_files(str(some))[0]).unlink()
  output = embed(idx_folder, handler, tmp_path / "out", OnLeak.DROP, [some], flags=TWO_PROCESSES)
  assert read_output(output) == read_output(dropped)
  for name in ("leaks.csv", "quarantine.csv"):
    assert (output / name).read_bytes() == (dropped / name).read_bytes()
  counts = json.loads((output / "stats.json").read_text())["bottlenecks"]
  assert min(counts["computed"], counts["reused"]) > 100


def test_drop_is_as_if_the_dropped_images_were_not_there(class_folders, handler, tmp_path):
  _, conflicting, leaked = plain_leaks(read_folders(class_folders))
  without = tmp_path / "without"
  shutil.copytree(class_folders, without)
  for key in conflicting | leaked:
    (without / key).unlink()
  # As many shards: else the images would be dealt to them otherwise.
  assert len(conflicting | leaked) > 100
  expected = embed(without, handler, tmp_path / "expected")
  output = embed(class_folders, handler, tmp_path / "out", OnLeak.DROP)
  assert read_output(output) == read_output(expected)
  assert (expected / "leaks.csv").read_text() == "kind,sha256,file_name,split,label\n"
  stats, expected_stats = (json.loads((folder / "stats.json").read_text()) for folder in (output, expected))
  for split in ("training", "testing"):
    for name in ("outputs", "labels", "shards"):
      assert stats["splits"][split][name] == expected_stats["splits"][split][name]
