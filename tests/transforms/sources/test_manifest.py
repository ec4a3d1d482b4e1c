"""A CSV manifest in place of a folder: the same images, its own splits, and what is not there."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_retrain.pipelines import bottlenecks, evaluate, verify
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from beam_retrain.pipelines.stages import digest_of_images
from beam_retrain.trainer import task
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.quarantine import Quarantined, Reason
from beam_retrain.transforms.core.records.schema import (
  ALL,
  TESTING,
  TRAINING,
  VALIDATION,
  Image,
  decode_bottleneck,
  parse_shard_name,
)
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.sources.find import find_source
from beam_retrain.transforms.sources.manifest import ManifestSource
from tests.helpers import write

_CUT = SplitPercentages(20.0, 20.0)
_TURN = (TRAINING, TRAINING, VALIDATION, TESTING)


def write_manifest(path: Path, rows: list[tuple], header: str = "file_name,label,split") -> str:
  with path.open("w", newline="") as file:
    csv.writer(file).writerows([header.split(","), *rows])
  return str(path)


def read_rows(path: str) -> list[dict[str, str]]:
  with open(path, newline="") as file:
    return list(csv.DictReader(file))


def list_images(folder: Path) -> list[tuple[str, str]]:
  return sorted((f"{path.parent.name}/{path.name}", path.parent.name) for path in folder.glob("*/*"))


@pytest.fixture
def with_splits(small_images, tmp_path) -> str:
  """By absolute paths from elsewhere: every fourth image of a class for testing, every third for validation."""
  rows = [(small_images / key, label, _TURN[at % 4]) for at, (key, label) in enumerate(list_images(small_images))]
  return write_manifest(tmp_path / "m.csv", rows)


def read_planned(source, splits, percentages, collect) -> dict[str, list]:
  found: dict[str, list] = {}
  for shard in collect(source.plan(splits, percentages)):
    found.setdefault(shard.split, []).extend(shard.read_images(source.labels))
  return {split: sorted(items, key=lambda item: item.key) for split, items in found.items()}


def test_without_splits_it_is_planned_as_the_class_folders_that_it_lists(small_images, collect, tmp_path):
  folder = tmp_path / "set"
  folder.symlink_to(small_images)
  manifest = write_manifest(small_images / "listed.csv", list_images(folder), "file_name,label")
  listed = find_source(str(folder / "listed.csv"))
  try:
    assert isinstance(listed, ManifestSource)
    assert (listed.has_splits, listed.has_validation, listed.labels) == (False, False, ["black", "grey", "white"])
    folders = find_source(str(folder))
    for splits, cut in (((TRAINING, TESTING), _CUT), ((TESTING,), _CUT), ((ALL,), None)):
      # The very shards: a folder's bottlenecks are made of the same bytes.
      assert sorted(collect(listed.plan(splits, cut))) == sorted(collect(folders.plan(splits, cut)))
  finally:
    Path(manifest).unlink()


def test_a_column_split_says_where_each_image_belongs(with_splits, small_images, collect):
  source = find_source(with_splits)
  assert (source.has_splits, source.has_validation) == (True, True)
  found = read_planned(source, (TRAINING, TESTING), _CUT, collect)
  assert {split: len(items) for split, items in found.items()} == {TRAINING: 60, VALIDATION: 30, TESTING: 30}
  rows = read_rows(with_splits)
  expected = {(row["file_name"].lstrip("/"), row["split"], row["label"]) for row in rows}
  assert {(item.key, split, item.label) for split, items in found.items() for item in items} == expected
  bytes_of = {row["file_name"].lstrip("/"): Path(row["file_name"]).read_bytes() for row in rows}
  assert all(item.encoded == bytes_of[item.key] for items in found.values() for item in items)
  assert set(read_planned(source, (TESTING,), None, collect)) == {TESTING}


def test_where_no_validation_images_are_named_they_are_drawn_from_the_training_ones(small_images, collect, tmp_path):
  rows = [
    (small_images / key, label, (TRAINING, TESTING)[at % 2])
    for at, (key, label) in enumerate(list_images(small_images))
  ]
  source = find_source(write_manifest(tmp_path / "m.csv", rows))
  assert (source.has_splits, source.has_validation) == (True, False)
  assert set(read_planned(source, (TRAINING, TESTING), _CUT, collect)) == {TRAINING, TESTING}


@pytest.mark.parametrize(("named", "validation"), [(True, 0.0), (False, 25.0)])
def test_named_validation_images_leave_nothing_to_be_drawn(with_splits, small_images, named, validation):
  request = BottlenecksRequest(input="x", output="out", validation_percentage=25.0)
  _, percentages = request.find_source(with_splits if named else str(small_images))
  assert percentages == SplitPercentages(10.0, validation)


def test_legacy_splits_are_for_class_folders(small_images, tmp_path):
  rows = [(small_images / key, label) for key, label in list_images(small_images)]
  path = write_manifest(tmp_path / "m.csv", rows, "file_name,label")
  with pytest.raises(InputError, match="--split_hash legacy splits class folders"):
    BottlenecksRequest(input="m.csv", output="out", split_hash="legacy").find_source(path)


def test_what_is_listed_and_not_there_is_left_out_and_counted(small_images, collect, tmp_path):
  (tmp_path / "folder").mkdir()
  rows = [
    (small_images / "black/0.jpg", "b"),
    ("gone.jpg", "b"),
    ("folder", "w"),
    (small_images / "white/0.jpg", "w"),
  ]
  source = find_source(write_manifest(tmp_path / "m.csv", rows, "file_name,label"))
  (shard,) = collect(source.plan((ALL,), None))
  assert sum(1 for _ in shard.names()) == 4  # what is gone was in an earlier run's ledger, too
  for items in (list(shard.read_images(source.labels)), list(source.read_all((ALL,), None))):
    bad = [item for item in items if isinstance(item, Quarantined)]
    assert [(item.key, item.reason, item.split) for item in bad] == [
      ("folder", Reason.UNREADABLE, ALL),
      ("gone.jpg", Reason.UNREADABLE, ALL),
    ]
    assert str(tmp_path / "gone.jpg") in bad[1].detail
    assert sorted(item.label for item in items if isinstance(item, Image)) == ["b", "w"]


def test_one_image_twice_is_an_error_wherever_its_rows_are_read(small_images, collect, tmp_path):
  images = list_images(small_images)
  rows = [(small_images / key, label, TRAINING) for key, label in images]
  key, label = images[7]
  rows.append((small_images / "grey/.." / key, label, TESTING))
  path = write_manifest(tmp_path / "m.csv", rows)
  sentence = f"{path}: lines 9 and 122 both name '{str(small_images / key).lstrip('/')}': remove one of them"
  source = find_source(path)
  with pytest.raises(InputError, match=sentence):
    list(source.read_all((TRAINING, TESTING), None))
  # Beam tells it with the traceback of its worker, of which `run_command` shows the sentence.
  with pytest.raises(Exception, match=sentence):
    collect(source.plan((TRAINING, TESTING), None))


@pytest.mark.parametrize(
  ("rows", "sentence"),
  [
    ([("a", "x", TRAINING), ("b", "x", TESTING)], "has only one class, 'x'"),
    ([("a", "x", TRAINING), ("b", "y", VALIDATION)], "has no testing images: add rows with the split testing"),
    ([("a", "x", TESTING), ("b", "y", TESTING)], "has no training images"),
    (
      [("a", "x", TRAINING), ("nope://c/b", "y", TESTING)],
      "line 3: nope://c/b cannot be read: nope:// is none of the file systems",
    ),
  ],
)
def test_what_cannot_be_planned_is_told_before_any_work(tmp_path, rows, sentence):
  path = write_manifest(tmp_path / "m.csv", rows)
  with pytest.raises(InputError, match=sentence):
    find_source(path).plan((TRAINING, TESTING), _CUT)


def test_a_remote_manifest_is_known_by_its_name():
  with pytest.raises(InputError, match=r"nope://bucket/m\.CSV cannot be read: .*: give another path\."):
    find_source("nope://bucket/m.CSV")


@pytest.mark.parametrize("row", ["https://example.org/1.jpg", "HTTP://example.org/1.jpg"])
def test_a_web_address_is_refused_by_a_sentence_that_is_true(tmp_path, row):
  sentence = f"{row} is a web address, and none is read: download what is there, and give its path"
  with pytest.raises(InputError, match=f"m.csv: line 2: {sentence}"):
    find_source(write_manifest(tmp_path / "m.csv", [(row, "x"), ("b", "y")], "file_name,label"))
  for path in (row, row.replace("jpg", "csv")):
    with pytest.raises(InputError, match=f"^{path} is a web address"):
      find_source(path)
  with pytest.raises(InputError, match=r"^file:///data/m is an address, not a path: give /data/m\.$"):
    find_source("file:///data/m")


def test_a_file_is_found_by_another_spelling_of_its_name(tmp_path):
  """As after a copy from macOS, whose names have decomposed letters."""
  names = {"K\xe4fer.jpg": "Ka\u0308fer.jpg", "o\u0308l.jpg": "\xf6l.jpg"}
  write(tmp_path, dict.fromkeys(names.values(), b"x"))
  source = find_source(write_manifest(tmp_path / "m.csv", [(name, name[0]) for name in names], "file_name,label"))
  read = list(source.read_all((ALL,), None))
  assert sorted((item.key, item.encoded) for item in read) == [(name, b"x") for name in names]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_manifest_that_is_not_utf_8_is_told(tmp_path, encoding):
  path = tmp_path / "m.csv"
  path.write_bytes("file_name,label\na,x\n".encode(encoding))
  with pytest.raises(InputError, match=r"m\.csv is not UTF-8 text: save it as CSV in UTF-8"):
    find_source(str(path))


def test_one_class_is_enough_to_try_a_model_on(tmp_path):
  path = write_manifest(tmp_path / "m.csv", [("a", "x", TESTING)])
  assert find_source(path, min_classes=1).labels == ["x"]


def test_a_sample_without_a_job_is_always_the_same_whatever_is_missing(with_splits, tmp_path):
  Path(with_splits).write_text(Path(with_splits).read_text() + "gone.jpg,black,testing\n")
  source = find_source(with_splits)
  every = {item.key: item for item in source.read_all((TRAINING, TESTING), None)}
  assert len(every) == 121
  assert len(list(source.read_all((TESTING,), None))) == 31
  sample = list(source.read_sample((TRAINING, TESTING), None, 20))
  assert len(sample) == 20
  assert all(every[item.key] == item for item in sample)
  assert list(source.read_sample((TRAINING, TESTING), None, 20)) == sample
  assert {item.key for item in source.read_sample((TRAINING, TESTING), None, 200)} == set(every)


def test_images_are_found_again_by_their_keys(with_splits, small_images):
  prefix = str(small_images).lstrip("/")
  keys = [f"{prefix}/white/3.gif", f"{prefix}/black/12.jpg", f"{prefix}/grey/404.png"]
  found = {image.key: image.encoded for image in find_source(with_splits).read_keys(keys)}
  assert found == {key: Path(f"/{key}").read_bytes() for key in keys[:2]}
  # Nobody looks at the files of other rows: these are in a bucket that does not exist.
  text = Path(with_splits).read_text()
  Path(with_splits).write_text(text + "gone.jpg,black,testing\ngs://b/there.jpg,black,testing\n")
  assert [image.key for image in find_source(with_splits).read_keys(["gone.jpg", keys[0]])] == keys[:1]


def test_the_state_of_a_manifest_is_that_of_its_images(tmp_path):
  for name in "ab":
    (tmp_path / f"{name}.png").write_bytes(b"1")
  path = write_manifest(tmp_path / "m.csv", [("a.png", "x"), ("b.png", "y"), ("c.png", "y")], "file_name,label")
  states = [digest_of_images(path)]
  assert digest_of_images(path) == states[0]
  (tmp_path / "b.png").write_bytes(b"12")
  states.append(digest_of_images(path))
  (tmp_path / "c.png").write_bytes(b"1")
  states.append(digest_of_images(path))
  write_manifest(tmp_path / "m.csv", [("a.png", "y"), ("b.png", "y"), ("c.png", "xx")], "file_name,label")
  states.append(digest_of_images(path))
  assert len(set(states)) == 4


def _records(folder: Path) -> Iterator[tuple[str, str, str]]:
  for path in sorted((folder / "records").glob("*.tfrecord")):
    split, *_ = parse_shard_name(path.name) or ("",)
    with path.open("rb") as file:
      for record in map(decode_bottleneck, read_records(file, path.name)):
        yield split, record.key, record.sha256


def test_from_a_manifest_to_a_verified_model(with_splits, tiny_trunk, small_images, tmp_path, capsys):
  Path(with_splits).write_text(Path(with_splits).read_text() + "gone.jpg,black,testing\n")
  made, model = tmp_path / "bottlenecks", tmp_path / "model"
  arguments = [f"--input={with_splits}", f"--trunk={tiny_trunk}", f"--output={made}"]
  assert bottlenecks.run(arguments) == 3
  assert not (made / "COMPLETED").exists()
  with (made / "quarantine.csv").open() as file:
    assert [(row["file_name"], row["reason"], row["split"]) for row in csv.DictReader(file)] == [
      ("gone.jpg", "UNREADABLE", TESTING)
    ]
  capsys.readouterr()
  assert bottlenecks.run([*arguments, "--max_bad_fraction=0.1"]) == 0
  assert "30 validation" in capsys.readouterr().out
  stats = json.loads((made / "stats.json").read_text())
  inputs = {split: (totals["inputs"], totals["outputs"]) for split, totals in stats["splits"].items()}
  assert inputs == {TRAINING: (60, 60), VALIDATION: (30, 30), TESTING: (31, 30)}
  rows = read_rows(with_splits)[:-1]
  sha256 = {row["file_name"]: hashlib.sha256(Path(row["file_name"]).read_bytes()).hexdigest() for row in rows}
  expected = {(row["split"], row["file_name"].lstrip("/"), sha256[row["file_name"]]) for row in rows}
  assert set(_records(made)) == expected

  assert task.run([f"--input={made}", f"--output={model}", "--rounds=10"]) == 0
  assert "60 training, 30 validation, 30 testing images" in capsys.readouterr().out
  totals = {}
  for name, source, split in (
    ("of_testing", with_splits, "auto"),
    ("of_all", with_splits, "all"),
    ("of_stored", str(made), "all"),
  ):
    output = tmp_path / name
    flags = [f"--model={model}", f"--input={source}", f"--split={split}", f"--output={output}"]
    assert evaluate.run([*flags, "--max_bad_fraction=0.1"]) == 0
    totals[name] = json.loads((output / "metrics.json").read_text())["total"]
  assert totals == {"of_testing": 30, "of_all": 120, "of_stored": 120}
  assert verify.run([f"--model={model}", f"--input={with_splits}", "--all"]) == 3
  shown = capsys.readouterr()
  assert "\n120 images, compared with" in shown.out
  assert "gone.jpg: UNREADABLE" in shown.err
