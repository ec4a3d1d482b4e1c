"""Reuse with files that vanish, damaged stores, and runs that were killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
import pytest

from beam_retrain.transforms.bottlenecks.embed import AssembleShard
from beam_retrain.transforms.bottlenecks.reuse import EmbedOnlyNew
from beam_retrain.transforms.bottlenecks.store import locate_bottlenecks
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER, describe_bottleneck
from beam_retrain.transforms.core.records.shards import Shard, StoredBottleneck
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.sources.image_files import ImageFile
from tests.helpers import ROOT
from tests.transforms.bottlenecks.reuse_suite import (
  LABELS,
  NO_TRUNK,
  Plan,
  check_same,
  cold,
  contents,
  cut_short,
  embed,
  flip,
  forget,
  handler,
  lead_nowhere,
  new_tree,
  noise_image,
  old_tree,
  plan,
  reports,
  store,
  write,
)

__all__ = ["cold", "handler", "new_tree", "old_tree", "store"]  # fixtures


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
  tree = write(tmp_path / "tree", {"ant/0": noise_image(1), "ant/1": noise_image(2), "bee/3": noise_image(1)})
  planned = plan_files(tree, ("ant/0", "ant/1"), ("bee/2", "bee/3"))
  embed(planned, handler, tmp_path / "cold")
  embed(planned, handler, tmp_path / "out", [])
  check_same(tmp_path / "out", tmp_path / "cold", computed=2)
  assert "bee/2,training,10,UNREADABLE," in (tmp_path / "out" / "quarantine.csv").read_text()


@pytest.mark.parametrize("becomes", [None, noise_image(99)])
def test_a_file_that_goes_or_changes_after_it_was_hashed(handler, tmp_path, monkeypatch, becomes: bytes | None):
  tree = write(tmp_path / "tree", {"ant/0": noise_image(1), "ant/1": noise_image(2), "bee/2": noise_image(1)})

  read_images = Shard.read_images

  def read_then_change(shard, labels):
    yield from read_images(shard, labels)
    (tree / "ant/0").unlink(missing_ok=True)
    if becomes:
      (tree / "ant/0").write_bytes(becomes)

  keys = ("ant/0", "ant/1", "bee/2")
  with monkeypatch.context() as patched:
    patched.setattr(Shard, "read_images", read_then_change)
    embed(plan_files(tree, keys), handler, tmp_path / "out", [])
  # The double of it has nothing to be computed from either: both are left to the next run.
  quarantine = (tmp_path / "out" / "quarantine.csv").read_text().splitlines()[1:]
  size = str(len(noise_image(1)))
  expected = [[key, "training", size, "UNREADABLE"] for key in ("ant/0", "bee/2")]
  assert [line.split(",")[:4] for line in quarantine] == expected
  assert "run the command again" in quarantine[0]

  write(tree, {"ant/0": noise_image(1)})
  planned = plan_files(tree, keys, modified_secs=2.0)
  embed(planned, handler, tmp_path / "out", [])
  embed(planned, handler, tmp_path / "cold")
  check_same(tmp_path / "out", tmp_path / "cold", computed=2)


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
    f"beam-retrain: {path} {what}: its remaining bottlenecks are computed again."
  ]


def test_a_store_that_changes_while_it_is_read_gives_no_wrong_vector(store, tmp_path):
  path = sorted((store / "records").glob("*.tfrecord"))[0]
  with path.open("rb") as file:
    found = describe_bottleneck(next(read_records(file, path.name)))
  task = AssembleShard(LABELS, 10**9)
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
  pipeline = beam.Pipeline()
  shards = pipeline | "Plan" >> plan(old_tree)()
  checked = shards | "Check" >> beam.Map(lambda shard: shard.split)
  _ = shards | EmbedOnlyNew(
    handler=NO_TRUNK,
    labels=LABELS,
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


def test_a_run_that_was_killed_keeps_what_it_had_computed(handler, tiny_trunk, tmp_path):
  tree = write(tmp_path / "tree", {f"{LABELS[n % 3]}/{n}.png": noise_image(n) for n in range(300)})
  output = tmp_path / "out"
  code = f"""
from pathlib import Path
from tests.transforms.bottlenecks.reuse_suite import ImageModelHandler, embed, plan
embed(plan(Path({str(tree)!r})), ImageModelHandler({str(tiny_trunk)!r}, batch_size=4), Path({str(output)!r}), [])
"""
  process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
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
  assert 0 < counters["bottlenecks_computed"] < 300
  embed(plan(tree), handler, tmp_path / "cold")
  check_same(output, tmp_path / "cold", computed=300)


def test_a_run_that_was_killed_while_assembling_computes_nothing_again(new_tree, cold, store, handler, tmp_path):
  output = tmp_path / "out"
  embed(plan(new_tree), handler, output, [store])
  forget(output, lambda number: number % 3 == 0)
  kept = {path: path.stat().st_mtime_ns for path in (output / "records").glob("*.tfrecord")}
  counters = embed(plan(new_tree), NO_TRUNK, output, [store])
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
