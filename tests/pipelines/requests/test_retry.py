"""`bottlenecks --retry_from`: what was repaired is computed, all else is taken; the result is that of a cold run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from beam_retrain.pipelines import bottlenecks
from beam_retrain.trainer import task
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.shards.checks import check_same
from tests.helpers import file_contents, read_json
from tests.pipelines.requests.retry_suite import (
  BAD,
  PERCENTAGES,
  Broken,
  break_and_accept,
  break_images,
  broken,
  check_ledgers,
  check_same_as_cold,
  cold,
  drawn,
  kept_broken,
  retry,
  run,
  spoil,
  trunk,
)

__all__ = ["broken", "cold", "drawn", "kept_broken", "trunk"]  # fixtures


def test_repaired_images_are_computed_and_the_rest_is_taken(cold, broken, tmp_path, capsys):
  assert not (broken.output / "COMPLETED").exists()
  before = file_contents(broken.output)
  broken.repair()
  capsys.readouterr()
  assert retry(broken.output, tmp_path / "out") == 0
  told = capsys.readouterr().out
  assert f"{BAD} of {BAD} quarantined images are good now, 0 still bad" in told
  check_same_as_cold(tmp_path / "out", cold, computed=BAD)
  check_ledgers(broken.output, tmp_path / "out", repaired=BAD)
  assert (tmp_path / "out" / "COMPLETED").exists()
  assert before == file_contents(broken.output)
  assert task.run([f"--input={tmp_path / 'out'}", f"--output={tmp_path / 'model'}", "--rounds=2"]) == 0


def test_what_is_still_bad_stays_in_quarantine(cold, broken, tmp_path, capsys):
  keys = list(broken.sound)
  broken.repair(keys[0], keys[5])
  assert retry(broken.output, tmp_path / "out") == 3
  assert f"2 of {BAD} quarantined images are good now, {BAD - 2} still bad\n" in capsys.readouterr().out
  assert run(broken.data, tmp_path / "cold", *broken.flags) == 3
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=2)
  check_ledgers(broken.output, tmp_path / "out", repaired=2)
  # Once more, from what the retry wrote, with flags that agree with it.
  broken.repair(*keys[1:5])
  flags = (f"--input={broken.data}", "--split_hash=stable", "--max_bad_fraction=0.1", "--trunk_threads=1")
  assert retry(tmp_path / "out", tmp_path / "second", *flags, "--batch_size=auto", *broken.flags) == 0
  assert f"{BAD - 2} of {BAD - 2} quarantined images are good now" in capsys.readouterr().out
  check_same_as_cold(tmp_path / "second", cold, computed=BAD - 2)


def test_a_run_that_was_completed_with_losses_is_retried_too(drawn, trunk, tmp_path, capsys):
  broken = break_and_accept(drawn, tmp_path, trunk)
  assert (broken.output / "COMPLETED").exists()
  broken.repair()
  keys = (path.relative_to(broken.data).as_posix() for path in sorted(broken.data.rglob("*.png")))
  (broken.data / next(key for key in keys if key not in broken.sound)).write_bytes(b"")
  assert retry(broken.output, tmp_path / "out") == 3
  line = f"{BAD} of {BAD} quarantined images are good now, 0 still bad; 1 that were good are bad now\n"
  assert line in capsys.readouterr().out
  check_ledgers(broken.output, tmp_path / "out", repaired=BAD - 1)


def test_the_trunk_is_the_stored_one(drawn, made, tmp_path):
  moved = Path(shutil.copytree(made.data.parent / "trunk", tmp_path / "trunk"))
  broken = break_images(drawn, tmp_path, f"--trunk={moved}", *PERCENTAGES)
  shutil.rmtree(moved)
  broken.repair()
  assert retry(tmp_path / "bad", tmp_path / "out") == 0
  assert file_contents(tmp_path / "out" / "trunk") == file_contents(tmp_path / "bad" / "trunk")
  assert read_json(tmp_path / "out" / "info.json")["trunk"] == read_json(tmp_path / "bad" / "info.json")["trunk"]
  card = tmp_path / "bad" / "trunk" / "trunk.json"
  card.write_text(card.read_text().replace('"input_px": 16', '"input_px": 32'))
  with pytest.raises(InputError, match=r"is no longer the trunk .* that made its bottlenecks"):
    retry(tmp_path / "bad", tmp_path / "second")


def test_all_settings_are_those_of_the_run(drawn, trunk, tmp_path, monkeypatch, capsys):
  data = Path(shutil.copytree(drawn, tmp_path / "data"))
  shutil.copy(sorted(data.rglob("*.png"))[-1], data / "ant" / "other_label.png")
  sound = spoil(data)
  monkeypatch.chdir(tmp_path)
  flags = (trunk, "--split_hash=legacy", "--testing_percentage=25", "--validation_percentage=15", "--batch_size=7")
  flags += ("--max_pixels=10000", "--retrain_names", "--on_leak=drop")
  assert run("data/", tmp_path / "bad", *flags) == 3
  Broken(data, sound, tmp_path / "bad", flags).repair()
  assert run("data/", tmp_path / "cold", *flags) == 0
  monkeypatch.chdir(tmp_path.parent)
  assert retry(tmp_path / "bad", tmp_path / "out") == 0
  assert f"{BAD} of {BAD} quarantined images are good now, 0 still bad\n" in capsys.readouterr().out
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=BAD)
  assert read_json(tmp_path / "out" / "stats.json")["reasons"] == {"CONFLICTING_LABELS": 2}


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--testing_percentage=10", "--testing_percentage 10.0 contradicts .* it was 30"),
    ("--validation_percentage=10", "--validation_percentage 10.0 contradicts .* it was 20"),
    ("--split_hash=legacy", "--split_hash legacy contradicts .* it was stable"),
    ("--trunk=bundled", "--trunk bundled contradicts"),
    ("--input=elsewhere", "--input elsewhere contradicts"),
    ("--batch_size=3", "--batch_size 3 contradicts"),
    ("--max_pixels=100", "--max_pixels 100 contradicts"),
    ("--retrain_names", "--retrain_names contradicts .* it was not given"),
    ("--on_leak=drop", "--on_leak drop contradicts .* it was warn"),
    ("--bottleneck_dir=texts", "--bottleneck_dir texts contradicts"),
    ("--reuse=elsewhere", "--reuse cannot be used with --retry_from"),
    ("--trunk_weights=elsewhere.h5", "--trunk_weights cannot be used with --retry_from"),
    ("--trunk_input_px=75", "--trunk_input_px cannot be used with --retry_from"),
  ],
)
def test_a_flag_that_contradicts_is_refused(kept_broken, tmp_path, flag, words):
  with pytest.raises(InputError, match=f"{words}.*: leave it out"):
    retry(kept_broken.output, tmp_path / "out", flag)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["added", "removed", "moved"])
def test_other_images_are_refused(broken, tmp_path, change):
  broken.repair()
  last = sorted(broken.data.rglob("*.png"))[-1]
  output = Path(shutil.copytree(broken.output, tmp_path / "out"))
  before = file_contents(output)
  if change == "added":
    shutil.copy(last, last.with_name("new.png"))
  elif change == "removed":
    last.unlink()
  else:
    shutil.copytree(last.parent, last.parent.with_name("zoo"))
  words = "the labels in" if change == "moved" else r"the input has \d+ (training|testing) images, but had \d+"
  with pytest.raises(InputError, match=f"{words}.*[Uu]se --reuse {broken.output} instead"):
    retry(broken.output, output)
  assert file_contents(output) == before


def test_counts_are_compared_split_by_split():
  assert check_same({"training": 8, "testing": 2}, "B", {"testing": 2, "training": 8}) == {"training": 8, "testing": 2}
  for planned in ({"training": 7, "testing": 3}, {"training": 8}, {"training": 8, "testing": 2, "validation": 1}):
    with pytest.raises(InputError, match="images, but had"):
      check_same(planned, "B", {"training": 8, "testing": 2})


def test_a_folder_that_cannot_be_retried_is_refused(kept_broken, made, tmp_path):
  with pytest.raises(InputError, match="is not an output of `beam-retrain bottlenecks`"):
    retry(made.model, tmp_path / "out")
  with pytest.raises(InputError, match="is not an output of `beam-retrain bottlenecks`"):
    retry(tmp_path / "nowhere", tmp_path / "out")
  with pytest.raises(InputError, match="has no quarantined images: there is nothing to retry"):
    retry(made.bottlenecks, tmp_path / "out")
  with pytest.raises(InputError, match="overlaps with --retry_from"):
    retry(kept_broken.output, kept_broken.output)
  with pytest.raises(InputError, match="the following arguments are required: --input"):
    bottlenecks.run([f"--output={tmp_path / 'out'}"])
  killed = Path(shutil.copytree(kept_broken.output, tmp_path / "killed"))
  (killed / "stats.json").unlink()  # it is written when all shards are there
  with pytest.raises(InputError, match="is not finished: run the command that wrote it again, to resume it"):
    retry(killed, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_folders_of_another_preprocessing_are_refused(kept_broken, tmp_path):
  output = Path(shutil.copytree(kept_broken.output, tmp_path / "bad"))
  info = output / "info.json"
  info.write_text(info.read_text().replace("bilinear resize", "bicubic resize"))
  with pytest.raises(InputError, match="were made with the preprocessing"):
    retry(output, tmp_path / "out")
