"""Tonight's folder: published whole, replaced whole; nothing behind a link is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from beam_retrain.pipelines.reevaluate import history
from beam_retrain.transforms.core.errors import InputError
from tests.pipelines.reevaluate.history_suite import (
  FINGERPRINT,
  REQUEST,
  fill_night,
  make_history,
  publish_night,
  tree_of,
)

# Tonight's folder


def test_a_night_is_published_whole_and_nothing_else_is_left(tmp_path):
  folder = tmp_path / "new" / "history"
  with history.tonight(str(folder), "2026-11-24", REQUEST) as working:
    assert working == str(folder / "unfinished" / "2026-11-24-fedcba987654")
    fill_night(Path(working), "2026-11-24")
    assert history.read_nights(str(folder)) == []
    history.publish(working, str(folder), "2026-11-24")
    assert [night.night for night in history.read_nights(str(folder))] == ["2026-11-24"]
  assert sorted(os.listdir(folder)) == [".lock", "2026-11-24"]


def test_a_killed_night_is_no_night_and_the_same_request_goes_on(tmp_path):
  with history.tonight(str(tmp_path), "2026-11-24", REQUEST) as working:
    (Path(working) / "half").write_text("")
  assert history.read_nights(str(tmp_path)) == []
  with history.tonight(str(tmp_path), "2026-11-24", "0" * 64) as working:
    assert os.listdir(working) == []
  with history.tonight(str(tmp_path), "2026-11-24", REQUEST) as working:
    assert os.listdir(working) == ["half"]


def test_what_is_unfinished_is_not_published(tmp_path):
  with history.tonight(str(tmp_path), "2026-11-24", REQUEST) as working:
    fill_night(Path(working), "2026-11-24")
    (Path(working) / "COMPLETED").unlink()
    with pytest.raises(ValueError, match="is not finished"):
      history.publish(working, str(tmp_path), "2026-11-24")
  assert history.read_nights(str(tmp_path)) == []


def test_a_rerun_replaces_the_night_and_sweeps_that_date_s_work(tmp_path):
  publish_night(tmp_path, "2026-11-23", "other")
  publish_night(tmp_path, "2026-11-24", "old")
  (tmp_path / "2026-11-24" / "old file").write_text("")
  for name in ("2026-11-24-000000000000", "2026-11-23-000000000000", "2026-11-24-mine", "mine"):
    (tmp_path / "unfinished" / name).mkdir(parents=True)
    (tmp_path / "unfinished" / name / "x").write_text("")
  publish_night(tmp_path, "2026-11-24", "new")
  assert (tmp_path / "2026-11-24" / "mark").read_text() == "new"
  assert not (tmp_path / "2026-11-24" / "old file").exists()
  assert (tmp_path / "2026-11-23" / "mark").read_text() == "other"
  assert sorted(os.listdir(tmp_path / "unfinished")) == ["2026-11-23-000000000000", "2026-11-24-mine", "mine"]


def test_a_damaged_night_is_replaced_too(tmp_path):
  publish_night(tmp_path, "2026-11-24", "old")
  (tmp_path / "2026-11-24" / "COMPLETED").unlink()
  (tmp_path / "2026-11-24" / "metrics.json").write_text("")
  publish_night(tmp_path, "2026-11-24", "new")
  assert [night.night for night in history.read_nights(str(tmp_path))] == ["2026-11-24"]


def test_a_folder_of_that_date_that_we_did_not_write_is_refused_untouched(tmp_path):
  (tmp_path / "2026-11-24").mkdir()
  (tmp_path / "2026-11-24" / "photo.jpg").write_text("the user's own")
  before = tree_of(tmp_path)
  with pytest.raises(InputError, match=r"was not written by `beam-retrain reevaluate`, or its info\.json is damaged"):
    publish_night(tmp_path, "2026-11-24")
  assert [path for path in tree_of(tmp_path) if not path.endswith("/.lock")] == before


def test_what_somebody_puts_there_while_the_night_runs_is_not_replaced(tmp_path):
  with history.tonight(str(tmp_path), "2026-11-24", REQUEST) as working:
    fill_night(Path(working), "2026-11-24")
    (tmp_path / "2026-11-24").mkdir()
    (tmp_path / "2026-11-24" / "photo.jpg").write_text("the user's own")
    with pytest.raises(InputError, match="move it away"):
      history.publish(working, str(tmp_path), "2026-11-24")
  assert (tmp_path / "2026-11-24" / "photo.jpg").exists()
  assert (Path(working) / "COMPLETED").exists()


def test_a_kill_between_the_two_renames_is_mended_at_the_next_start(tmp_path):
  publish_night(tmp_path, "2026-11-24", "old")
  aside = tmp_path / "unfinished" / "2026-11-24-replaced"
  (tmp_path / "unfinished").mkdir()
  os.rename(tmp_path / "2026-11-24", aside)
  assert [night.night for night in history.read_nights(str(tmp_path))] == ["2026-11-24"]
  assert (tmp_path / "2026-11-24" / "mark").read_text() == "old"
  assert not aside.exists()

  os.rename(tmp_path / "2026-11-24", aside)
  with history.tonight(str(tmp_path), "2026-11-25", REQUEST):
    assert (tmp_path / "2026-11-24" / "mark").read_text() == "old"


def test_a_kill_after_the_second_rename_is_mended_at_the_next_start(tmp_path):
  publish_night(tmp_path, "2026-11-24", "new")
  aside = tmp_path / "unfinished" / "2026-11-24-replaced"
  shutil.copytree(tmp_path / "2026-11-24", aside)
  (aside / "mark").write_text("old")
  history.read_nights(str(tmp_path))
  assert (tmp_path / "2026-11-24" / "mark").read_text() == "new"
  assert not aside.exists()


def test_a_rename_that_fails_leaves_the_old_night(tmp_path, monkeypatch):
  publish_night(tmp_path, "2026-11-24", "old")
  rename = os.rename

  def full_disk(source: str, target: str) -> None:
    if source.endswith(REQUEST[:12]):
      raise OSError(28, "No space left on device", target)
    rename(source, target)

  monkeypatch.setattr(os, "rename", full_disk)
  with pytest.raises(OSError, match="No space left"):
    publish_night(tmp_path, "2026-11-24", "new")
  assert (tmp_path / "2026-11-24" / "mark").read_text() == "old"
  assert os.listdir(tmp_path / "unfinished") == [f"2026-11-24-{REQUEST[:12]}"]


# Links


def test_nothing_behind_a_link_is_touched(tmp_path):
  folder, outside = make_history(tmp_path, "2026-11-24"), tmp_path / "outside"
  fill_night(outside / "2026-11-20", "2026-11-20")
  fill_night(outside / "store", "")
  (folder / "2026-11-20").symlink_to(outside / "2026-11-20")
  shutil.rmtree(folder / "2026-11-24" / "bottlenecks" / FINGERPRINT[:12])
  (folder / "2026-11-24" / "bottlenecks" / FINGERPRINT[:12]).symlink_to(outside / "store")
  fill_night(folder / "2026-11-22", "2026-11-22")
  shutil.rmtree(folder / "2026-11-22" / "bottlenecks")
  (folder / "2026-11-22" / "bottlenecks").symlink_to(outside / "store" / "bottlenecks")
  (folder / "unfinished").mkdir()
  (folder / "unfinished" / "2026-11-24-000000000000").symlink_to(outside)
  before = tree_of(outside)
  assert [night.night for night in history.read_nights(str(folder))] == ["2026-11-20", "2026-11-22", "2026-11-24"]
  with history.tonight(str(folder), "2026-11-24", REQUEST) as working:
    history.prune_stores(str(folder), 0, "2026-11-24")
    fill_night(Path(working), "2026-11-24")
    history.publish(working, str(folder), "2026-11-24")
  assert tree_of(outside) == before
  assert not (folder / "unfinished").exists()


def test_a_night_that_is_a_link_is_not_replaced(tmp_path):
  folder = make_history(tmp_path, "2026-11-23")
  fill_night(tmp_path / "outside", "2026-11-24")
  (folder / "2026-11-24").symlink_to(tmp_path / "outside")
  with pytest.raises(InputError, match="move it away"):
    publish_night(folder, "2026-11-24")


def test_working_behind_a_link_is_refused(tmp_path):
  folder, outside = make_history(tmp_path, "2026-11-23"), tmp_path / "outside"
  outside.mkdir()
  (folder / "unfinished").symlink_to(outside)
  with pytest.raises(InputError, match="unfinished is a link"):
    history.read_nights(str(folder))
  with pytest.raises(InputError, match="unfinished is a link"):
    publish_night(folder, "2026-11-24")
  (folder / "unfinished").unlink()
  (folder / "unfinished").mkdir()
  (folder / "unfinished" / f"2026-11-24-{REQUEST[:12]}").symlink_to(outside)
  with pytest.raises(InputError, match="is a link: remove it"):
    publish_night(folder, "2026-11-24")
  assert os.listdir(outside) == []
