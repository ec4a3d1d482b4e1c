"""Shards of images that nobody has touched are copied from a store, and no image of them is read."""

from __future__ import annotations

import os
import time

from tests.transforms.bottlenecks.reuse_suite import (
  NO_TRUNK,
  check_same,
  embed,
  handler,
  noise_image,
  plan,
  write,
  yesterday,
)

__all__ = ["handler"]  # a fixture


def test_untouched_images_are_not_read_and_an_edit_behind_the_clock_is_seen(handler, tmp_path):
  tree, store = write(tmp_path / "tree", yesterday()), tmp_path / "store"
  embed(plan(tree), handler, store)
  assert "bottlenecks_reused" not in embed(plan(tree), NO_TRUNK, tmp_path / "carried", [store])
  check_same(tmp_path / "carried", store, computed=0)
  time.sleep(0.02)  # a file system's clock has steps of some milliseconds

  # As large as before and as old, by its time of modification.
  edited = tree / "ant" / "9"
  status, size = edited.stat(), edited.stat().st_size
  content = noise_image(1, "JPEG", (8, 8))
  assert len(content) <= size
  edited.write_bytes(content.ljust(size, b"\0"))
  os.utime(edited, ns=(status.st_atime_ns, status.st_mtime_ns))
  counters = embed(plan(tree), handler, tmp_path / "edited", [store])
  embed(plan(tree), handler, tmp_path / "cold")
  check_same(tmp_path / "edited", tmp_path / "cold", computed=1)
  assert 0 < counters["bottlenecks_reused"] < 8


def test_class_folders_that_swapped_their_names_are_read(handler, tmp_path):
  """No file has another size or time of any kind."""
  images = {f"{label}/{n}": noise_image(100 * place + n, "BMP") for place, label in enumerate("ab") for n in range(4)}
  tree, store = write(tmp_path / "tree", images), tmp_path / "store"
  for path in tree.rglob("?/?"):
    os.utime(path, (1e9, 1e9))
  embed(plan(tree), handler, store, labels="ab")
  for name, now in (("a", "c"), ("b", "a"), ("c", "b")):
    (tree / name).rename(tree / now)
  embed(plan(tree), NO_TRUNK, tmp_path / "swapped", [store], labels="ab")
  embed(plan(tree), handler, tmp_path / "cold", labels="ab")
  check_same(tmp_path / "swapped", tmp_path / "cold", computed=0)
