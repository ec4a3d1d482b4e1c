"""convert of image folders and manifests: what is written, under which names, and what reads it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from beam_retrain.pipelines import bottlenecks, convert, verify
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import decode_image, describe_bottleneck
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.sources.find import find_source
from tests.conftest import EXACT
from tests.helpers import file_contents, python, read_csv

_PERCENTAGES = SplitPercentages(testing=30, validation=20)
_KINDS = ("TIFF", "WEBP", "JPEG2000", "JPEG", "PNG", "GIF")


def _pixels(seed: int) -> np.ndarray:
  return np.kron(np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8), np.ones((8, 8, 1), np.uint8))


def _encode(seed: int, kind: str, **options) -> bytes:
  file = io.BytesIO()
  PIL.Image.fromarray(_pixels(seed)).save(file, kind, **{"lossless": True} if kind == "WEBP" else {}, **options)
  return file.getvalue()


def _turned(orientation: int) -> PIL.Image.Exif:
  exif = PIL.Image.Exif()
  exif[0x0112] = orientation
  return exif


def _write(folder: Path) -> Path:
  """Two classes of each format; two images of one name; a JPEG that is stored turned; one that is none."""
  for label, first in (("cat", 0), ("dog", 100)):
    (folder / label / "more").mkdir(parents=True)
    for number in range(24):
      kind = _KINDS[number % len(_KINDS)]
      name = f"more/{number}" if number % 5 == 0 else str(number)
      (folder / label / f"{name}.{kind.lower()}").write_bytes(_encode(first + number, kind))
  (folder / "cat/same.tif").write_bytes(_encode(200, "TIFF"))
  (folder / "cat/same.PNG").write_bytes(_encode(201, "PNG"))
  (folder / "dog/turned.jpg").write_bytes(_encode(202, "JPEG", exif=_turned(6)))
  return folder


def _convert(source: Path, output: Path, *flags: str) -> int:
  return convert.run(["--input", str(source), "--output", str(output), *flags])


def _hashes(folder: Path) -> dict[str, str]:
  """Path -> hash of all but what names the command line, and the reports."""
  contents = file_contents(folder)
  left_out = ("info.json", "config.toml", "COMPLETED", ".lock")
  return {
    path: hashlib.sha256(data).hexdigest()
    for path, data in contents.items()
    if path not in left_out and ".shards" not in path
  }


def _records(folder: Path) -> dict[str, bytes]:
  found = {}
  for path in sorted((folder / "records").glob("*.tfrecord")):
    with path.open("rb") as file:
      found |= {image.key: image.encoded for image in map(decode_image, read_records(file, str(path)))}
  return found


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
  return _write(tmp_path_factory.mktemp("images") / "in")


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory) -> Path:
  output = tmp_path_factory.mktemp("converted") / "out"
  assert _convert(source, output, "--formats", "png,tfrecord") == 0
  return output


def test_each_image_is_written_once_under_its_own_name(source, converted):
  tree = {path for path in file_contents(converted) if path.endswith(".png")}
  expected = {path.relative_to(source).with_suffix(".png").as_posix() for path in source.rglob("*.*")}
  same = {path for path in tree if path.startswith("cat/same_nohash_")}
  assert len(same) == 2
  assert tree - same == expected - {"cat/same.png"}
  assert json.loads((converted / "stats.json").read_text())["splits"]["all"]["outputs"] == len(tree) == 51
  assert (converted / "labels.txt").read_text() == "cat\ndog\n"


def test_the_pixels_are_those_of_the_originals_upright(converted):
  for path, seed in (("cat/1", 1), ("dog/2", 102), ("dog/more/10", 110), ("dog/12", 112)):
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(converted / f"{path}.png")), _pixels(seed))
  turned = np.asarray(PIL.Image.open(converted / "dog/turned.png")).astype(int)
  assert np.abs(turned - np.rot90(_pixels(202), -1)).mean() < 20


def test_the_records_hold_what_the_tree_holds(converted):
  tree = {path: data for path, data in file_contents(converted).items() if path.endswith(".png")}
  assert _records(converted) == tree


def test_an_image_stays_in_its_split_whatever_reads_the_output(source, converted, tmp_path):
  tree = tmp_path / "tree"
  shutil.copytree(
    converted, tree, ignore=shutil.ignore_patterns("records", "*.json", "*.toml", "*.txt", "*.csv", "COMPLETED", ".*")
  )

  def splits(folder: Path) -> dict[str, str]:
    images = find_source(str(folder))
    assert not images.has_splits
    return {
      key.partition(".")[0].partition("_nohash_")[0]: _PERCENTAGES.split_of(key, shard.split)
      for shard in images.list_shards(("training", "testing"), _PERCENTAGES)
      for key, _ in shard.names()
    }

  expected = splits(source)
  assert set(expected.values()) == {"training", "testing", "validation"}
  assert splits(converted) == splits(tree) == expected


def test_records_without_splits_are_planned_by_hash(converted, collect):
  images = find_source(str(converted))
  planned = collect(images.plan(("training", "testing"), _PERCENTAGES))
  listed = list(images.list_shards(("training", "testing"), _PERCENTAGES))
  assert sorted(shard.name() for shard in planned) == sorted(shard.name() for shard in listed)
  assert {key for shard in planned for key, _ in shard.names()} == set(_records(converted))
  assert {shard.split for shard in images.list_shards(("all",), None)} == {"all"}


def test_two_processes_write_the_same_bytes(tmp_path):
  for number in range(1100):  # two shards
    path = tmp_path / "in" / "ab"[number % 2] / f"{number}.ppm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P6 2 1 255 " + number.to_bytes(2) * 3)
  script = (
    "import sys; from beam_retrain.pipelines import convert; from beam_retrain.pipelines.jobs import forked_workers;"
    "forked_workers.available_cores = lambda: 2; code = convert.run(sys.argv[1:]);"
    "print(len(forked_workers._FORKED)); sys.exit(code)"
  )
  two = python("-c", script, "--input", tmp_path / "in", "--output", tmp_path / "two")
  assert two.stdout.splitlines()[-1] == "2"
  assert _convert(tmp_path / "in", tmp_path / "one") == 0
  assert _hashes(tmp_path / "two") == _hashes(tmp_path / "one")
  assert len(_records(tmp_path / "one")) == 1100


def test_every_file_is_vouched_for(converted, capsys):
  assert verify.run(["--folder", str(converted)]) == 0
  assert "58 files of 1 outputs are as they were written" in capsys.readouterr().out


def test_a_plain_jpeg_stays_as_it_is_and_others_become_jpegs(source, tmp_path):
  assert _convert(source, tmp_path / "out", "--formats", "jpg") == 0
  assert (tmp_path / "out/cat/3.jpg").read_bytes() == (source / "cat/3.jpeg").read_bytes()
  again = PIL.Image.open(tmp_path / "out/dog/turned.jpg")
  assert (again.format, again.size, again.getexif().get(0x0112)) == ("JPEG", (24, 32), None)


def test_a_bad_image_is_quarantined_alone_and_a_rerun_mends_it(tmp_path):
  source, output = tmp_path / "in", tmp_path / "out"
  (source / "a").mkdir(parents=True)
  (source / "b").mkdir()
  for number, kind in enumerate(("TIFF", "WEBP")):
    (source / "a" / f"{number}").write_bytes(_encode(number, kind))
    (source / "b" / f"{number}").write_bytes(_encode(number + 9, kind))
  (source / "a/cut.tif").write_bytes(_encode(3, "TIFF")[:300])
  (source / "b/empty.webp").write_bytes(b"")
  assert _convert(source, output, "--max_pixels", "700") == 3
  assert not (output / "COMPLETED").exists()
  assert [(row[0], row[1], row[3]) for row in read_csv(output / "quarantine.csv")[1:]][:2] == [
    ("a/0", "all", "TOO_LARGE"),
    ("a/1", "all", "TOO_LARGE"),
  ]
  assert _convert(source, output) == 3
  assert [(row[0], row[3]) for row in read_csv(output / "quarantine.csv")[1:]] == [
    ("a/cut.tif", "TRUNCATED"),
    ("b/empty.webp", "EMPTY"),
  ]
  for path in ("a/cut.tif", "b/empty.webp"):
    (source / path).write_bytes(_encode(5, "TIFF"))
  assert _convert(source, output) == 0
  assert sorted(path.name for path in (output / "a").iterdir()) == ["0.jpg", "1.jpg", "cut.jpg"]
  # A class that is gone leaves no images behind.
  shutil.rmtree(source / "b")
  assert _convert(source, output) == 0
  assert not (output / "b").exists()


def test_a_killed_run_goes_on_with_what_is_missing(source, converted, tmp_path):
  output = tmp_path / "out"
  shutil.copytree(converted, output)
  (output / "COMPLETED").unlink()
  (output / "dog/more/0.png").unlink()
  (output / "dog/more/0.png.tmp-0123").write_bytes(b"half")
  assert _convert(source, output, "--formats", "png,tfrecord") == 0
  assert _hashes(output) == _hashes(converted)


def test_splits_and_manifests_keep_what_they_say(tmp_path):
  source = tmp_path / "in"
  for split in ("training", "testing"):
    for label in ("a", "b"):
      (source / split / label).mkdir(parents=True)
      (source / split / label / "0.webp").write_bytes(_encode(1, "WEBP"))
  assert _convert(source, tmp_path / "split") == 0
  assert (tmp_path / "split/testing/b/0.jpg").exists()
  with (source / "list.csv").open("w", newline="") as file:
    rows = [("training/a/0.webp", "x", "training"), ("testing/b/0.webp", "y", "validation")]
    csv.writer(file).writerows([("file_name", "label", "split"), *rows])
  shutil.rmtree(source / "training/b")
  assert _convert(source / "list.csv", tmp_path / "manifest") == 0
  assert sorted(_records(tmp_path / "manifest")) == ["testing/b/0.jpg", "training/a/0.jpg"]
  assert (tmp_path / "manifest/validation/y/testing/b/0.jpg").exists()
  assert sorted(path.name for path in (tmp_path / "manifest/records").glob("*.tfrecord")) == [
    "training-00000-of-00001.tfrecord",
    "validation-00000-of-00001.tfrecord",
  ]


def test_a_class_that_the_output_needs_itself_is_refused_before_any_work(tmp_path):
  for label in ("records", "b"):
    (tmp_path / "in" / label).mkdir(parents=True)
    (tmp_path / "in" / label / "0.png").write_bytes(_encode(0, "PNG"))
  with pytest.raises(InputError, match="the label 'records' is a name that the output needs itself"):
    _convert(tmp_path / "in", tmp_path / "out")
  assert os.listdir(tmp_path) == ["in"]
  assert _convert(tmp_path / "in", tmp_path / "out", "--formats", "tfrecord") == 0


def test_a_folder_of_images_is_one_class_of_its_name(tmp_path):
  (tmp_path / "photos").mkdir()
  for number in range(3):
    (tmp_path / "photos" / f"{number}.webp").write_bytes(_encode(number, "WEBP"))
  assert _convert(tmp_path / "photos", tmp_path / "out", "--formats", "png") == 0
  assert sorted(path.name for path in (tmp_path / "out/photos").iterdir()) == ["0.png", "1.png", "2.png"]


def test_bottlenecks_of_the_output_are_split_as_those_of_the_input(
  small_images, bottlenecks_folder, tiny_trunk, tmp_path
):
  assert _convert(small_images, tmp_path / "out", "--formats", "png,tfrecord") == 0
  flags = [f"--input={tmp_path / 'out'}", f"--trunk={tiny_trunk}", f"--output={tmp_path / 'bottlenecks'}"]
  assert bottlenecks.run([*flags, *EXACT]) == 0
  of_input, of_output = (_splits(folder) for folder in (bottlenecks_folder, tmp_path / "bottlenecks"))
  assert of_output == of_input
  assert set(of_input.values()) == {"training", "testing"}


def _splits(bottlenecks: Path) -> dict[str, str]:
  found = {}
  for path in (bottlenecks / "records").glob("*.tfrecord"):
    with path.open("rb") as file:
      records = map(describe_bottleneck, read_records(file, str(path)))
      found |= {record.key.partition(".")[0]: path.name.partition("-")[0] for record in records}
  return found
