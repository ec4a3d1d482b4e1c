"""`bottlenecks --retry_from`: what was repaired is computed, all else is taken; the result is that of a cold run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from beam_retrain.pipelines import bottlenecks, convert
from beam_retrain.trainer import task
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.records.schema import decode_bottleneck, decode_image, encode_image
from beam_retrain.transforms.core.records.tfrecord import frame, read_records
from beam_retrain.transforms.shards.image_counts import check_same

_RUNNER = "--runner=FnApiRunner"


@pytest.fixture(scope="session")
def trunk(made: Any) -> str:
  return f"--trunk={made.data.parent / 'trunk'}"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory, draw_digits: Callable) -> Path:
  folder = tmp_path_factory.mktemp("drawn")
  draw_digits(folder / "all", 300, lambda number, label: f"{label}/{number}.png")
  for label in ("zebra", "ant", "mule"):
    shutil.copytree(folder / "all" / label, folder / "data" / label)
  return folder / "data"


class Broken(NamedTuple):
  """Images some of which are bad, and what `bottlenecks` made of them.

  Attributes:
    data: class folders.
    sound: the bytes of the bad ones when they are repaired, by key.
    output: where `bottlenecks` ended with exit code 3.
    flags: of that run.
  """

  data: Path
  sound: dict[str, bytes]
  output: Path
  flags: tuple[str, ...]

  def repair(self, *keys: str) -> None:
    for key in keys or self.sound:
      path = self.data / key
      if path.is_symlink():
        path.unlink()
      path.write_bytes(self.sound[key])


_BAD = 6


def _spoil(data: Path) -> dict[str, bytes]:
  """Makes six images bad in as many ways; the last is not there: a link that leads nowhere."""
  keys = [path.relative_to(data).as_posix() for path in sorted(data.rglob("*.png"))][::12][:_BAD]
  sound = {key: (data / key).read_bytes() for key in keys}
  cut, empty, text, header, pixels, gone = (data / key for key in keys)
  cut.write_bytes(sound[keys[0]][:-30])
  empty.write_bytes(b"")
  text.write_bytes(b"no image")
  header.write_bytes(sound[keys[3]][:20])
  damaged = bytearray(sound[keys[4]])
  damaged[-40:-20] = bytes(20)
  pixels.write_bytes(damaged)
  gone.unlink()
  gone.symlink_to(data / "nowhere.png")
  return sound


_PERCENTAGES = ("--testing_percentage=30", "--validation_percentage=20")


def _break(drawn: Path, folder: Path, *flags: str) -> Broken:
  data = Path(shutil.copytree(drawn, folder / "data"))
  sound = _spoil(data)
  assert _run(data, folder / "bad", *flags) == 3
  return Broken(data, sound, folder / "bad", flags)


def _break_and_accept(drawn: Path, folder: Path, trunk: str) -> Broken:
  data = Path(shutil.copytree(drawn, folder / "data"))
  sound = _spoil(data)
  assert _run(data, folder / "bad", trunk, *_PERCENTAGES, "--max_bad_fraction=0.5") == 0
  return Broken(data, sound, folder / "bad", (trunk, *_PERCENTAGES))


@pytest.fixture
def broken(drawn: Path, trunk: str, tmp_path: Path) -> Broken:
  return _break(drawn, tmp_path, trunk, *_PERCENTAGES)


@pytest.fixture(scope="module")
def kept_broken(drawn: Path, trunk: str, tmp_path_factory: pytest.TempPathFactory) -> Broken:
  """For tests that change nothing of it."""
  return _break(drawn, tmp_path_factory.mktemp("broken"), trunk, *_PERCENTAGES)


def _run(data: Path | str, output: Path, *flags: str) -> int:
  return bottlenecks.run([f"--input={data}", f"--output={output}", _RUNNER, *flags])


def _retry(folder: Path, output: Path, *flags: str) -> int:
  return bottlenecks.run([f"--retry_from={folder}", f"--output={output}", _RUNNER, *flags])


def _stats(output: Path) -> dict[str, Any]:
  stats: dict[str, Any] = json.loads((output / "stats.json").read_text())
  return stats


def _files(folder: Path) -> dict[str, bytes]:
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_same_as_cold(output: Path, cold: Path, computed: int) -> None:
  """Compares with a run that reused nothing; `computed`: how often the trunk ran."""
  records = {name: data for name, data in _files(output / "records").items() if name.endswith(".tfrecord")}
  assert records == {name: data for name, data in _files(cold / "records").items() if name.endswith(".tfrecord")}
  for name in ("quarantine.csv", "labels.txt", "schema.pbtxt"):
    assert (output / name).read_bytes() == (cold / name).read_bytes()
  assert _info(output)["settings"] == _info(cold)["settings"]
  assert _info(output)["trunk"] == _info(cold)["trunk"]
  stats = _stats(output)
  assert {**stats, "bottlenecks": 0} == {**_stats(cold), "bottlenecks": 0}
  assert stats["bottlenecks"] == {"computed": computed, "reused": stats["outputs"] - computed}


def _info(output: Path) -> dict[str, Any]:
  info: dict[str, Any] = json.loads((output / "info.json").read_text())
  return info


def check_ledgers(before: Path, after: Path, repaired: int) -> None:
  """Both close, over the same inputs."""
  first, second = _stats(before), _stats(after)
  for stats in (first, second):
    assert stats["inputs"] == stats["outputs"] + stats["quarantined"]
  assert {split: totals["inputs"] for split, totals in first["splits"].items()} == {
    split: totals["inputs"] for split, totals in second["splits"].items()
  }
  assert first["quarantined"] - second["quarantined"] == repaired == second["outputs"] - first["outputs"]


def test_repaired_images_are_computed_and_the_rest_is_taken(broken, tmp_path, capsys):
  assert not (broken.output / "COMPLETED").exists()
  before = _files(broken.output)
  broken.repair()
  capsys.readouterr()
  assert _retry(broken.output, tmp_path / "out") == 0
  told = capsys.readouterr().out
  assert f"{_BAD} of {_BAD} quarantined images sound now, 0 still bad" in told
  assert _run(broken.data, tmp_path / "cold", *broken.flags) == 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=_BAD)
  check_ledgers(broken.output, tmp_path / "out", repaired=_BAD)
  assert (tmp_path / "out" / "COMPLETED").exists()
  assert before == _files(broken.output)
  assert task.run([f"--input={tmp_path / 'out'}", f"--output={tmp_path / 'model'}", "--rounds=2"]) == 0


def test_what_is_still_bad_stays_in_quarantine(broken, tmp_path, capsys):
  keys = list(broken.sound)
  broken.repair(keys[0], keys[5])
  assert _retry(broken.output, tmp_path / "out") == 3
  assert f"2 of {_BAD} quarantined images sound now, {_BAD - 2} still bad\n" in capsys.readouterr().out
  assert _run(broken.data, tmp_path / "cold", *broken.flags) == 3
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=2)
  check_ledgers(broken.output, tmp_path / "out", repaired=2)
  # Once more, from what the retry wrote.
  broken.repair(*keys[1:5])
  assert _retry(tmp_path / "out", tmp_path / "second") == 0
  assert f"{_BAD - 2} of {_BAD - 2} quarantined images sound now" in capsys.readouterr().out
  assert _run(broken.data, tmp_path / "whole", *broken.flags) == 0
  check_same_as_cold(tmp_path / "second", tmp_path / "whole", computed=_BAD - 2)


def test_a_run_that_was_completed_with_losses_is_retried_too(drawn, trunk, tmp_path, capsys):
  broken = _break_and_accept(drawn, tmp_path, trunk)
  assert (broken.output / "COMPLETED").exists()
  broken.repair()
  keys = (path.relative_to(broken.data).as_posix() for path in sorted(broken.data.rglob("*.png")))
  (broken.data / next(key for key in keys if key not in broken.sound)).write_bytes(b"")
  assert _retry(broken.output, tmp_path / "out") == 3
  line = f"{_BAD} of {_BAD} quarantined images sound now, 0 still bad; 1 that were good have gone bad since\n"
  assert line in capsys.readouterr().out
  check_ledgers(broken.output, tmp_path / "out", repaired=_BAD - 1)


def test_the_trunk_is_the_stored_one(drawn, made, tmp_path):
  moved = Path(shutil.copytree(made.data.parent / "trunk", tmp_path / "trunk"))
  broken = _break(drawn, tmp_path, f"--trunk={moved}", *_PERCENTAGES)
  shutil.rmtree(moved)
  broken.repair()
  assert _retry(tmp_path / "bad", tmp_path / "out") == 0
  assert _files(tmp_path / "out" / "trunk") == _files(tmp_path / "bad" / "trunk")
  assert _info(tmp_path / "out")["trunk"] == _info(tmp_path / "bad")["trunk"]
  card = tmp_path / "bad" / "trunk" / "trunk.json"
  card.write_text(card.read_text().replace('"input_px": 16', '"input_px": 32'))
  with pytest.raises(InputError, match=r"is not the trunk .* any more that its bottlenecks were made with"):
    _retry(tmp_path / "bad", tmp_path / "second")


def test_all_settings_are_those_of_the_run(drawn, trunk, tmp_path, monkeypatch, capsys):
  data = Path(shutil.copytree(drawn, tmp_path / "data"))
  shutil.copy(sorted(data.rglob("*.png"))[-1], data / "ant" / "other_label.png")
  sound = _spoil(data)
  monkeypatch.chdir(tmp_path)
  flags = (trunk, "--split_hash=legacy", "--testing_percentage=25", "--validation_percentage=15", "--batch_size=7")
  flags += ("--max_pixels=10000", "--retrain_names", "--on_leak=drop")
  assert _run("data/", tmp_path / "bad", *flags) == 3
  Broken(data, sound, tmp_path / "bad", flags).repair()
  assert _run("data/", tmp_path / "cold", *flags) == 0
  monkeypatch.chdir(tmp_path.parent)
  assert _retry(tmp_path / "bad", tmp_path / "out") == 0
  assert f"{_BAD} of {_BAD} quarantined images sound now, 0 still bad\n" in capsys.readouterr().out
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=_BAD)
  assert _stats(tmp_path / "out")["reasons"] == {"CONFLICTING_LABELS": 2}


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
    ("--reuse=elsewhere", "--reuse does not go with --retry_from"),
    ("--trunk_weights=elsewhere.h5", "--trunk_weights does not go with --retry_from"),
    ("--trunk_input_px=75", "--trunk_input_px does not go with --retry_from"),
  ],
)
def test_a_flag_that_contradicts_is_refused(kept_broken, tmp_path, flag, words):
  with pytest.raises(InputError, match=f"{words}.*: leave it out"):
    _retry(kept_broken.output, tmp_path / "out", flag)
  assert not (tmp_path / "out").exists()


def test_a_flag_that_agrees_is_no_fault(broken, tmp_path):
  broken.repair()
  flags = (f"--input={broken.data}", "--split_hash=stable", "--max_bad_fraction=0.1", "--trunk_threads=1")
  flags += ("--batch_size=auto",)
  assert _retry(broken.output, tmp_path / "out", *flags, *broken.flags) == 0


@pytest.mark.parametrize("change", ["added", "removed", "moved"])
def test_other_images_are_refused(broken, tmp_path, change):
  broken.repair()
  last = sorted(broken.data.rglob("*.png"))[-1]
  output = Path(shutil.copytree(broken.output, tmp_path / "out"))
  before = _files(output)
  if change == "added":
    shutil.copy(last, last.with_name("new.png"))
  elif change == "removed":
    last.unlink()
  else:
    shutil.copytree(last.parent, last.parent.with_name("zoo"))
  words = "the labels in" if change == "moved" else r"there are \d+ (training|testing) images today, there were \d+"
  with pytest.raises(InputError, match=f"{words}.*[Gg]ive --reuse {broken.output} instead"):
    _retry(broken.output, output)
  assert _files(output) == before


def test_counts_are_compared_split_by_split():
  assert check_same({"training": 8, "testing": 2}, "B", {"testing": 2, "training": 8}) == {"training": 8, "testing": 2}
  for planned in ({"training": 7, "testing": 3}, {"training": 8}, {"training": 8, "testing": 2, "validation": 1}):
    with pytest.raises(InputError, match="images today, there were"):
      check_same(planned, "B", {"training": 8, "testing": 2})


def test_a_folder_that_cannot_be_retried_is_refused(kept_broken, made, tmp_path):
  with pytest.raises(InputError, match="is not what `beam-retrain bottlenecks` wrote"):
    _retry(made.model, tmp_path / "out")
  with pytest.raises(InputError, match="is not what `beam-retrain bottlenecks` wrote"):
    _retry(tmp_path / "nowhere", tmp_path / "out")
  with pytest.raises(InputError, match="has no quarantined images: there is nothing to do again"):
    _retry(made.bottlenecks, tmp_path / "out")
  with pytest.raises(InputError, match="overlaps with --retry_from"):
    _retry(kept_broken.output, kept_broken.output)
  with pytest.raises(InputError, match="the following arguments are required: --input"):
    bottlenecks.run([f"--output={tmp_path / 'out'}", _RUNNER])
  killed = Path(shutil.copytree(kept_broken.output, tmp_path / "killed"))
  (killed / "stats.json").unlink()  # it is written when all shards are there
  with pytest.raises(InputError, match="is not finished: run the command that wrote it again, it goes on where it was"):
    _retry(killed, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_folders_of_another_preprocessing_are_refused(kept_broken, tmp_path):
  output = Path(shutil.copytree(kept_broken.output, tmp_path / "bad"))
  info = output / "info.json"
  info.write_text(info.read_text().replace("bilinear resize", "bicubic resize"))
  with pytest.raises(InputError, match="were made with another preprocessing"):
    _retry(output, tmp_path / "out")


def _write_idx(folder: Path, labels: Sequence[int]) -> Path:
  folder.mkdir(exist_ok=True)
  pixels = np.random.default_rng(5).integers(0, 256, (len(labels), 9, 8), dtype=np.uint8)
  for name, some in (("train", slice(0, 60)), ("t10k", slice(60, None))):
    (folder / f"{name}-images-idx3-ubyte").write_bytes(encode_idx(pixels[some]))
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(encode_idx(np.array(labels[some], np.uint8)))
  return folder


def test_idx_files_whose_labels_were_repaired(trunk, tmp_path):
  sound = [number % 3 for number in range(100)]
  bad = list(sound)
  bad[5], bad[70], bad[71] = 7, 9, 3
  assert _run(_write_idx(tmp_path / "data", bad), tmp_path / "bad", trunk, "--classes=3") == 3
  _write_idx(tmp_path / "data", sound)
  assert _retry(tmp_path / "bad", tmp_path / "out") == 0
  assert _run(tmp_path / "data", tmp_path / "cold", trunk, "--classes=3") == 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=3)
  check_ledgers(tmp_path / "bad", tmp_path / "out", repaired=3)


def test_records_that_were_repaired(trunk, tmp_path):
  data = _write_idx(tmp_path / "idx", [number % 3 for number in range(100)])
  records = tmp_path / "records"
  assert convert.run([f"--input={data}", f"--output={records}", "--formats=tfrecord", "--classes=3", _RUNNER]) == 0
  (path,) = (records / "records").glob("training-*.tfrecord")
  sound = path.read_bytes()
  with path.open("rb") as file:
    images = list(map(decode_image, read_records(file, path.name)))
  spoilt = []
  for number, image in enumerate(images):
    encoded = image.encoded[:-20] if number in (3, 9) else image.encoded
    spoilt.append(frame(encode_image(image.__class__(image.key, image.label, encoded, "png", 9, 8), int(image.label))))
  path.write_bytes(b"".join(spoilt))
  assert _run(records, tmp_path / "bad", trunk, "--validation_percentage=40") == 3
  path.write_bytes(sound)
  assert _retry(tmp_path / "bad", tmp_path / "out") == 0
  assert _run(records, tmp_path / "cold", trunk, "--validation_percentage=40") == 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=2)
  check_ledgers(tmp_path / "bad", tmp_path / "out", repaired=2)


def test_imported_text_bottlenecks_stay(drawn, trunk, tmp_path):
  data = Path(shutil.copytree(drawn, tmp_path / "data"))
  texts = tmp_path / "texts"
  for number, path in enumerate(sorted(data.rglob("*.png"))):
    if number % 2:
      text = texts / f"{path.relative_to(data)}.txt"
      text.parent.mkdir(parents=True, exist_ok=True)
      text.write_text(",".join(map(str, np.random.default_rng(number).normal(size=64).astype(np.float32))))
  sound = _spoil(data)
  flags = (trunk, *_PERCENTAGES, f"--bottleneck_dir={texts}")
  assert _run(data, tmp_path / "bad", *flags) == 3
  Broken(data, sound, tmp_path / "bad", flags).repair()
  assert _retry(tmp_path / "bad", tmp_path / "out") == 0
  assert _run(data, tmp_path / "cold", *flags) == 0
  computed = sum(not (texts / f"{key}.txt").exists() for key in sound)
  assert computed > 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=computed)
  os.utime(next(texts.rglob("*.txt")), (1, 1))
  with pytest.raises(InputError, match="have changed since the run that wrote"):
    _retry(tmp_path / "bad", tmp_path / "second")


def test_equal_images_that_were_repaired_are_computed_once(broken, tmp_path):
  first, *others = broken.sound
  same = dict.fromkeys(broken.sound, broken.sound[first])
  broken._replace(sound=same).repair()
  assert _retry(broken.output, tmp_path / "out") == 0
  assert _run(broken.data, tmp_path / "cold", *broken.flags) == 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=1)
  found = []
  for path in (tmp_path / "out" / "records").glob("*.tfrecord"):
    with path.open("rb") as file:
      found += [one for one in map(decode_bottleneck, read_records(file, path.name)) if one.key in same]
  assert len(found) == len(others) + 1
  for one in found:
    np.testing.assert_array_equal(one.vector, found[0].vector)


def test_a_manifest_s_images(drawn, trunk, tmp_path):
  data = Path(shutil.copytree(drawn, tmp_path / "data"))
  sound = _spoil(data)
  keys = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.png"))
  splits = ("training", "training", "testing", "validation")
  rows = [f"data/{key},{key.split('/')[0]},{splits[number % 4]}" for number, key in enumerate(keys)]
  manifest = tmp_path / "images.csv"
  manifest.write_text("\n".join(["file_name,label,split", *rows, ""]))
  (data / list(sound)[5]).unlink()  # not even a link any more: the manifest lists it all the same
  assert _run(manifest, tmp_path / "bad", trunk) == 3
  assert _stats(tmp_path / "bad")["reasons"]["UNREADABLE"] == 1
  assert set(_stats(tmp_path / "bad")["splits"]) == {"training", "validation", "testing"}
  Broken(data, sound, tmp_path / "bad", ()).repair()
  assert _retry(tmp_path / "bad", tmp_path / "out") == 0
  assert _run(manifest, tmp_path / "cold", trunk) == 0
  check_same_as_cold(tmp_path / "out", tmp_path / "cold", computed=_BAD)
  check_ledgers(tmp_path / "bad", tmp_path / "out", repaired=_BAD)
  manifest.write_text("\n".join(["file_name,label,split", *rows[1:], ""]))
  with pytest.raises(InputError, match=r"there are \d+ training images today, there were \d+"):
    _retry(tmp_path / "bad", tmp_path / "second")


def test_distorted_variants_are_taken_shard_by_shard(made, trunk, tmp_path):
  data = Path(shutil.copytree(made.data, tmp_path / "data"))
  flags = (trunk, "--testing_percentage=20", "--flip_left_right", "--random_scale=10", "--distortion_copies=2")
  flags += ("--distortion_seed=3",)
  key = _first_training_key(tmp_path, data, flags)
  sound = {key: (data / key).read_bytes()}
  (data / key).write_bytes(b"")
  assert _run(data, tmp_path / "bad", *flags) == 3
  Broken(data, sound, tmp_path / "bad", ()).repair()
  shard, other = (f"training-0000{number}-of-00002.tfrecord" for number in (0, 1))
  # What is planted there shows whether it is copied: nothing else has these bytes.
  planted = (tmp_path / "bad" / "distorted" / other).read_bytes()[::-1]
  (tmp_path / "bad" / "distorted" / other).write_bytes(planted)
  report = tmp_path / "bad" / "distorted" / ".shards" / f"{other}.json"
  report.write_text(json.dumps({**json.loads(report.read_text()), "sha256": hashlib.sha256(planted).hexdigest()}))
  assert _retry(tmp_path / "bad", tmp_path / "out") == 0
  cold = tmp_path / "cold"
  assert (tmp_path / "out" / "distorted" / shard).read_bytes() == (cold / "distorted" / shard).read_bytes()
  assert (tmp_path / "out" / "distorted" / other).read_bytes() == planted
  assert _stats(tmp_path / "out")["distorted"] == _stats(cold)["distorted"]
  check_same_as_cold(tmp_path / "out", cold, computed=1)


def _first_training_key(tmp_path: Path, data: Path, flags: Sequence[str]) -> str:
  """Returns the key of a image of the first of two training shards, by a run that finds all of them sound."""
  assert _run(data, tmp_path / "cold", *flags) == 0
  path = tmp_path / "cold" / "records" / "training-00000-of-00002.tfrecord"
  with path.open("rb") as file:
    return decode_bottleneck(next(read_records(file, path.name))).key


def test_distortions_that_contradict_are_refused(kept_broken, tmp_path):
  for flag in ("--flip_left_right", "--random_crop=10", "--distortion_copies=2"):
    with pytest.raises(InputError, match=f"{flag.replace('=', ' ')}.* contradicts .* it was not given"):
      _retry(kept_broken.output, tmp_path / "out", flag)
