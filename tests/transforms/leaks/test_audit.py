"""The split audit of real digits with planted doubles, against a plain loop: each kind of input; warn, drop, fail."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image as Pillow

from beam_retrain.pipelines.bottlenecks import run
from beam_retrain.pipelines.convert import run as convert
from beam_retrain.transforms.bottlenecks.compute import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.reuse import EmbedOnlyNew
from beam_retrain.transforms.bottlenecks.store import record_files
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.images.idx import encode_idx, read_images_header, read_items, read_labels_header
from beam_retrain.transforms.core.records.leaks import OnLeak
from beam_retrain.transforms.core.records.schema import decode_bottleneck, decode_image
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.system.cpu import Threads
from beam_retrain.transforms.leaks.audit import AuditImages, WriteLeaks, drop_leaks, leaked_images
from beam_retrain.transforms.leaks.policy import SplitAudit
from beam_retrain.transforms.shards.ledger import CloseLedger
from beam_retrain.transforms.shards.work import REPORTS_FOLDER, WorkShards
from beam_retrain.transforms.sources.find import find_source, read_images

_PERCENTAGES = SplitPercentages()
_TRAINING, _TESTING = 2200, 600
_NO_TRUNK = ImageModelHandler("/nowhere/trunk")
_TWO_PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
_HEADER = ["kind", "sha256", "file_name", "split", "label"]


class Image(NamedTuple):
  """A image as a plain reader knows it; `given`: the split that its data set says, if it does."""

  key: str
  label: str
  given: str | None
  encoded: bytes
  percentages: SplitPercentages = _PERCENTAGES

  @property
  def split(self) -> str:
    return self.percentages.split_of(self.key, self.given)


# Data: digits of MNIST, in each of the forms that they can come in.


class Digits(NamedTuple):
  pixels: dict[str, np.ndarray]
  labels: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def digits(mnist_folder) -> Digits:
  """The first digits of MNIST, of which a few hundred are overwritten with copies of others."""
  pixels, labels = {}, {}
  for split, prefix, count in (("training", "train", _TRAINING), ("testing", "t10k", _TESTING)):
    for name, read_header, found in (
      ("images-idx3", read_images_header, pixels),
      ("labels-idx1", read_labels_header, labels),
    ):
      path = mnist_folder / f"{prefix}-{name}-ubyte.gz"
      with gzip.open(path) as file:
        header = read_header(file, path.name)
        data = read_items(file, header, 0, count, path.name)
      found[split] = np.frombuffer(data, np.uint8).reshape(count, *header.dimensions[1:]).copy()
  rng = np.random.default_rng(3)
  places = [("training", number) for number in range(_TRAINING)] + [("testing", number) for number in range(_TESTING)]
  order = [places[number] for number in rng.permutation(len(places))]
  for group in range(90):
    first, *copies = (order.pop() for _ in range(rng.integers(2, 6)))
    for split, number in copies:
      pixels[split][number] = pixels[first[0]][first[1]]
      if group % 3:  # else with the labels that the overwritten ones had
        labels[split][number] = labels[first[0]][first[1]]
  # Neighbours, in one shard, and the last image of a shard with the first of the next.
  for first, copy in ((5, 6), (1023, 1024)):
    pixels["training"][copy] = pixels["training"][first]
    labels["training"][copy] = (labels["training"][first] + 1) % 10
  # One that is in validation and in testing alone.
  in_validation = next(
    number
    for split, number in order
    if split == "training"
    and _PERCENTAGES.split_of(f"training/{labels[split][number]}/{number}.png", split) == "validation"
  )
  in_testing = next(number for split, number in order if split == "testing")
  for found in (pixels, labels):
    found["testing"][in_testing] = found["training"][in_validation]
  return Digits(pixels, labels)


def write_idx(folder: Path, digits: Digits, packed: bool = False) -> Path:
  folder.mkdir(parents=True)
  for split, prefix in (("training", "train"), ("testing", "t10k")):
    for name, array in (("images-idx3-ubyte", digits.pixels[split]), ("labels-idx1-ubyte", digits.labels[split])):
      data = encode_idx(array)
      path = folder / (f"{prefix}-{name}.gz" if packed else f"{prefix}-{name}")
      path.write_bytes(gzip.compress(data, 1) if packed else data)
  return folder


def numbered(digits: Digits) -> Iterable[tuple[str, int, int, np.ndarray]]:
  for split in ("training", "testing"):
    for number, label in enumerate(digits.labels[split]):
      yield split, number, int(label), digits.pixels[split][number]


def read_idx(digits: Digits) -> list[Image]:
  return [
    Image(f"{split}/{label}/{number}.png", str(label), split, encode_pixels(pixels, "png"))
    for split, number, label, pixels in numbered(digits)
  ]


@pytest.fixture(scope="module")
def idx_folder(digits, tmp_path_factory) -> Path:
  return write_idx(tmp_path_factory.mktemp("audit") / "idx", digits)


@pytest.fixture(scope="module")
def class_folders(digits, tmp_path_factory) -> Path:
  root = tmp_path_factory.mktemp("audit") / "plain"
  for split, number, label, pixels in numbered(digits):
    path = root / f"digit {label}" / f"{split}-{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_pixels(pixels, "png"))
  return root


def read_folders(root: Path, has_splits: bool = False) -> list[Image]:
  found = []
  for path in sorted(path for path in root.rglob("*") if path.is_file()):
    key = path.relative_to(root).as_posix()
    found.append(Image(key, path.parent.name, key.split("/")[0] if has_splits else None, path.read_bytes()))
  return found


def read_converted(root: Path) -> list[Image]:
  found = []
  for path in sorted((root / "records").glob("*.tfrecord")):
    with path.open("rb") as file:
      for image in map(decode_image, read_records(file, path.name)):
        found.append(Image(image.key, image.label, path.name.split("-")[0], image.encoded))
  return found


# The plain loop, and what it expects.


def plain_leaks(images: Iterable[Image]) -> tuple[list[list[str]], set[str], set[str]]:
  """Returns the rows of `leaks.csv`, and the keys that are dropped for their labels, and for being in testing, too."""
  groups: dict[bytes, list[Image]] = defaultdict(list)
  for image in images:
    groups[image.encoded].append(image)
  rows, conflicting, leaked = [], set(), set()
  for encoded, copies in groups.items():
    digest = hashlib.sha256(encoded).hexdigest()
    in_testing = [image for image in copies if image.split == "testing"]
    if len({image.label for image in copies}) > 1:
      rows += [["different_labels", digest, image.key, image.split, image.label] for image in copies]
      conflicting |= {image.key for image in copies}
    if 0 < len(in_testing) < len(copies):
      rows += [["training_and_testing", digest, image.key, image.split, image.label] for image in copies]
      leaked |= {image.key for image in copies if image not in in_testing}
  return sorted(rows), conflicting, leaked - conflicting


def plain_counts(rows: list[list[str]]) -> dict[str, dict[str, int]]:
  counts = {}
  for kind in ("different_labels", "training_and_testing"):
    digests = [row[1] for row in rows if row[0] == kind]
    counts[kind] = {"groups": len(set(digests)), "images": len(digests)}
  return counts


def read_csv(path: Path) -> list[list[str]]:
  return list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))


# Jobs.


def execute(build, *flags: str) -> None:
  pipeline = beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner", *flags]))
  build(pipeline)
  pipeline.run().wait_until_finish()


def write_shard(shard: Shard, labels: list[str], folder: str) -> None:
  lines = [f"{item.key}\t{getattr(item, 'reason', 'kept')}" for item in read_images(shard, labels)]
  (Path(folder) / shard.name()).write_text("\n".join(lines))


def audit_images(
  path: Path, folder: Path, percentages: SplitPercentages = _PERCENTAGES
) -> tuple[list[list[str]], dict[str, str]]:
  """Returns the rows of the leaks, and what became of each key where they were dropped: 'kept' or the reason."""
  folder.mkdir()
  source = find_source(str(path))

  def build(root: beam.Pipeline) -> None:
    shards = root | "Plan" >> source.plan(("training", "testing"), percentages)
    audited = shards | "Audit" >> AuditImages(source.labels, percentages)
    _ = audited | "Leaks" >> beam.FlatMapTuple(leaked_images) | "Write" >> WriteLeaks(str(folder / "leaks.csv"))
    _ = (
      shards
      | "Drop" >> beam.Map(drop_leaks, beam.pvalue.AsDict(audited))
      | "WriteShard" >> beam.Map(write_shard, source.labels, str(folder))
    )

  execute(build)
  fates: dict[str, str] = {}
  for written in sorted(folder.glob("*-of-*")):
    for line in written.read_text().splitlines():
      key, fate = line.split("\t")
      assert key not in fates
      fates[key] = fate
  header, *rows = read_csv(folder / "leaks.csv")
  assert header == _HEADER
  return rows, fates


def check_against_plain_loop(images: list[Image], rows: list[list[str]], fates: dict[str, str]) -> None:
  expected, conflicting, leaked = plain_leaks(images)
  assert rows == expected
  assert fates == {
    image.key: "CONFLICTING_LABELS" if image.key in conflicting else "LEAKED" if image.key in leaked else "kept"
    for image in images
  }


@pytest.fixture(scope="module")
def trunk_folder(tmp_path_factory) -> Path:
  import tensorflow as tf

  from beam_retrain.transforms.core.models.saved_model import freeze, save_trunk

  folder = tmp_path_factory.mktemp("audit") / "trunk"
  # float32 [N, 16, 16, 3] -> float32 [N, 64].
  save_trunk(
    freeze(lambda images: tf.reshape(tf.nn.avg_pool2d(images[..., :1], 2, 2, "SAME"), [-1, 64]), 16), str(folder)
  )
  return folder


@pytest.fixture(scope="module")
def handler(trunk_folder) -> ImageModelHandler:
  return ImageModelHandler(str(trunk_folder))


def embed(
  path: Path,
  handler: ImageModelHandler,
  output: Path,
  on_leak: OnLeak = OnLeak.WARN,
  stores: list[Path] | None = None,
  flags: Iterable[str] = (),
  percentages: SplitPercentages = _PERCENTAGES,
) -> Path:
  """The stage's job as `bottlenecks` builds it, without tensorflow-transform."""
  records = output / "records"
  (records / REPORTS_FOLDER).mkdir(parents=True, exist_ok=True)
  source = find_source(str(path))
  audit = SplitAudit(on_leak, source.labels, percentages, handler.max_pixels, Threads(1))

  def build(root: beam.Pipeline) -> None:
    planned = audit.plan(root | "Plan" >> source.plan(("training", "testing"), percentages))
    where = {"output": str(records), "request": str(on_leak), "checked": planned.checked}
    if stores is None:
      work: beam.PTransform = WorkShards(EmbedShard(handler, source.labels), **where)
    else:
      work = EmbedOnlyNew(
        handler=handler,
        labels=source.labels,
        stores=[str(store) for store in stores],
        fresh_folder=str(output / ".fresh"),
        **where,
      )
    reports = planned.shards | "Work" >> work
    leaks = audit.audit(planned, reports, str(records))
    _ = (planned.shards, reports) | "Close" >> CloseLedger(output=str(output), shards_folder=str(records), leaks=leaks)

  execute(build, *flags)
  return output


def read_output(output: Path) -> dict[str, list[tuple[str, bytes]]]:
  """Shard's name -> (key, record) in its order."""
  found = {}
  for path in record_files(str(output)):
    with open(path, "rb") as file:
      records = list(read_records(file, path))
    found[Path(path).name] = [(decode_bottleneck(record).key, record) for record in records]
  return found


def files_of(folder: Path) -> dict[str, bytes]:
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def warned(idx_folder, handler, tmp_path_factory) -> Path:
  return embed(idx_folder, handler, tmp_path_factory.mktemp("audit") / "warned")


@pytest.fixture(scope="module")
def dropped(idx_folder, handler, tmp_path_factory) -> Path:
  return embed(idx_folder, handler, tmp_path_factory.mktemp("audit") / "dropped", OnLeak.DROP)


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


@pytest.fixture(scope="module")
def converted(idx_folder, tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp("audit") / "converted"
  flags = [f"--input={idx_folder}", f"--output={folder}", "--formats=jpg,tfrecord", "--runner=FnApiRunner"]
  assert convert(flags) == 0
  return folder


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
  assert read_csv(warned / "leaks.csv") == [_HEADER, *rows]
  stats = json.loads((warned / "stats.json").read_text())
  assert stats["leaks"] == plain_counts(rows)
  assert (stats["outputs"], stats["quarantined"]) == (_TRAINING + _TESTING, 0)


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
  output = embed(idx_folder, _NO_TRUNK, tmp_path / "out", OnLeak.DROP, [warned])
  assert read_output(output) == read_output(dropped)
  for name in ("leaks.csv", "quarantine.csv"):
    assert (output / name).read_bytes() == (dropped / name).read_bytes()
  stats = json.loads((output / "stats.json").read_text())
  assert stats.pop("bottlenecks") == {"computed": 0, "reused": stats["outputs"]}
  expected = json.loads((dropped / "stats.json").read_text())
  assert stats == {name: value for name, value in expected.items() if name != "bottlenecks"}


def test_warn_with_reuse_audits_too(idx_folder, warned, tmp_path):
  output = embed(idx_folder, _NO_TRUNK, tmp_path / "out", OnLeak.WARN, [warned])
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
  assert files_of(output) == files_of(whole)


@pytest.mark.parametrize("on_leak", [OnLeak.WARN, OnLeak.DROP])
def test_two_processes_write_the_same(idx_folder, warned, dropped, handler, tmp_path, on_leak):
  output = embed(idx_folder, handler, tmp_path / "out", on_leak, flags=_TWO_PROCESSES)
  assert files_of(output) == files_of(warned if on_leak == OnLeak.WARN else dropped)


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


# As a user runs it.


def arguments(path: Path, trunk: Path, output: Path, *more: str) -> list[str]:
  return [f"--input={path}", f"--trunk={trunk}", f"--output={output}", "--runner=FnApiRunner", *more]


def name_in(split: str, folder: Path, start: int) -> Path:
  """Returns the path of a image, numbered from `start` on, that falls into a split."""
  numbers = range(start, start + 1000)
  return next(folder / f"{n}.png" for n in numbers if _PERCENTAGES.split_of(f"{folder.name}/{n}.png") == split)


@pytest.fixture(scope="module")
def small(digits, tmp_path_factory) -> Path:
  """Class folders 0 and 1 of a few digits: two are in training and in testing alike, one has two labels."""
  root = tmp_path_factory.mktemp("audit") / "small"
  for number in range(300):
    path = root / str(digits.labels["training"][number] % 2) / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_pixels(digits.pixels["training"][number], "png"))
  _, conflicting, leaked = plain_leaks(read_folders(root))
  for key in conflicting | leaked:  # the planted ones: here are others
    (root / key).unlink()
  images = read_folders(root)
  for number, image in enumerate([image for image in images if image.split == "testing"][:2]):
    name_in("training", root / image.label, 1000 * (1 + number)).write_bytes(image.encoded)
  zero = next(image for image in images if image.split == "training" and image.label == "0")
  name_in("training", root / "1", 5000).write_bytes(zero.encoded)
  return root


_LINES = (
  "1 image has different labels (2 copies)",
  "2 images are in training and in testing alike (4 copies)",
)


def test_the_command_warns(small, trunk_folder, tmp_path, capsys):
  output = tmp_path / "out"
  assert run(arguments(small, trunk_folder, output)) == 0
  told = capsys.readouterr().err
  assert f"warning: {_LINES[0]}: {output}/leaks.csv; --on_leak drop leaves them out\n" in told
  assert f"warning: {_LINES[1]}: {output}/leaks.csv; --on_leak drop leaves them out of training\n" in told
  assert len(read_csv(output / "leaks.csv")) == 1 + 2 + 4
  assert (output / "COMPLETED").exists()
  assert "on_leak" not in json.loads((output / "info.json").read_text())["settings"]


def test_the_command_drops_and_counts_no_loss(small, trunk_folder, tmp_path, capsys):
  output = tmp_path / "out"
  rows, conflicting, leaked = plain_leaks(read_folders(small))
  assert run(arguments(small, trunk_folder, output, "--on_leak=drop")) == 0
  told = capsys.readouterr()
  assert f"{_LINES[0]}: all left out; see {output}/leaks.csv\n" in told.err
  assert f"{_LINES[1]}: left out of training; see {output}/leaks.csv\n" in told.err
  assert f"4 of {len(read_folders(small))} inputs left out (2 CONFLICTING_LABELS, 2 LEAKED), listed in" in told.out
  assert read_csv(output / "leaks.csv") == [_HEADER, *rows]
  assert {row[0] for row in read_csv(output / "quarantine.csv")[1:]} == conflicting | leaked
  assert (output / "COMPLETED").exists()
  assert json.loads((output / "info.json").read_text())["settings"]["on_leak"] == "drop"


def test_the_command_fails_before_the_trunk_runs(small, trunk_folder, tmp_path, capsys):
  output = tmp_path / "out"
  flags = arguments(small, trunk_folder, output, "--on_leak=fail")
  rows, _, _ = plain_leaks(read_folders(small))
  for _ in range(2):  # again, into what is there by then
    assert run(flags) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
      f"beam-retrain: {_LINES[0]} and {_LINES[1]}: see {output}/leaks.csv; mend them, or leave them out with"
      " --on_leak drop instead of fail."
    )
    assert read_csv(output / "leaks.csv") == [_HEADER, *rows]
    assert not (output / "COMPLETED").exists()
    assert record_files(str(output)) == []
    assert not list((output / "records" / REPORTS_FOLDER).iterdir())


def test_fail_keeps_an_earlier_output_and_goes_on_once_the_leaks_are_mended(small, trunk_folder, tmp_path, capsys):
  tree, output = tmp_path / "tree", tmp_path / "out"
  shutil.copytree(small, tree)
  rows, conflicting, leaked = plain_leaks(read_folders(tree))
  for key in conflicting | leaked:
    (tree / key).unlink()
  flags = arguments(tree, trunk_folder, output, "--on_leak=fail")
  assert run(flags) == 0  # none are there
  assert (output / "leaks.csv").read_text() == "kind,sha256,file_name,split,label\n"
  assert json.loads((output / "stats.json").read_text())["leaks"] == plain_counts([])
  assert "testing alike" not in capsys.readouterr().err
  before = files_of(output)

  for key in conflicting | leaked:
    shutil.copy(small / key, tree / key)
  assert run(flags) == 1
  assert f"see {output}/leaks.refused.csv; mend them" in capsys.readouterr().err
  after = files_of(output)
  text = after.pop("leaks.refused.csv").decode()
  assert list(csv.reader(io.StringIO(text))) == [_HEADER, *rows]
  assert after == before

  for key in conflicting | leaked:
    (tree / key).unlink()
  assert run(flags) == 0
  assert not (output / "leaks.refused.csv").exists()
  assert (output / "COMPLETED").exists()


def test_another_commands_output_is_not_written_into(small, trunk_folder, converted, tmp_path):
  output = tmp_path / "converted"
  shutil.copytree(converted, output)
  before = files_of(output)
  with pytest.raises(InputError, match="holds the output of `beam-retrain convert`"):
    run(arguments(small, trunk_folder, output, "--on_leak=fail"))
  assert files_of(output) == before


def test_a_class_that_dropping_leaves_empty_is_told_before_anything_is_lost(small, trunk_folder, tmp_path):
  tree, output = tmp_path / "tree", tmp_path / "out"
  shutil.copytree(small, tree)
  (tree / "2").mkdir()
  zero = next(image for image in read_folders(small) if image.split == "training" and image.label == "0")
  for number, split in enumerate(("training", "validation", "testing")):
    encoded = zero.encoded if split == "testing" else encode_pixels(np.full((9, 9), number, np.uint8), "png")
    name_in(split, tree / "2", 0).write_bytes(encoded)
  assert run(arguments(tree, trunk_folder, output)) == 0
  before = files_of(output)
  with pytest.raises(InputError) as raised:
    run(arguments(tree, trunk_folder, output, "--on_leak=drop"))
  assert str(raised.value) == (
    "no testing image of class '2' is left: --on_leak drop leaves them out, whose leaks --on_leak warn lists: mend"
    " those, add images, or remove the class."
  )
  assert files_of(output) == before


def test_bad_images_that_are_there_twice_are_no_leaks(small, handler, tmp_path):
  """Before the work as after it: nobody asked to drop what is quarantined anyway."""
  tree = tmp_path / "tree"
  shutil.copytree(small, tree)
  cut = io.BytesIO()
  Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(cut, "JPEG")
  for number, encoded in enumerate((b"", b"no image", cut.getvalue()[:-300])):
    for label in ("0", "1"):
      for name in ("a", "b", "c"):
        (tree / label / f"bad-{name}-{number}.jpg").write_bytes(encoded)
  rows, _, _ = plain_leaks(read_folders(small))
  outputs = {on_leak: embed(tree, handler, tmp_path / on_leak, on_leak) for on_leak in (OnLeak.WARN, OnLeak.DROP)}
  for output in outputs.values():
    assert read_csv(output / "leaks.csv") == [_HEADER, *rows]
  reasons = {on_leak: json.loads((path / "stats.json").read_text())["reasons"] for on_leak, path in outputs.items()}
  assert reasons[OnLeak.WARN] == {"EMPTY": 6, "NOT_AN_IMAGE": 6, "TRUNCATED": 6}
  assert reasons[OnLeak.DROP] == {**reasons[OnLeak.WARN], "CONFLICTING_LABELS": 2, "LEAKED": 2}


def test_dropped_images_do_not_hide_bad_ones(small, trunk_folder, tmp_path, capsys):
  tree = tmp_path / "tree"
  shutil.copytree(small, tree)
  (tree / "0" / "bad.png").write_bytes(b"")
  output = tmp_path / "out"
  assert run(arguments(tree, trunk_folder, output, "--on_leak=drop")) == 3
  count = len(read_folders(tree))
  assert f"1 of {count} inputs are bad (1 EMPTY): see" in capsys.readouterr().err
  assert json.loads((output / "stats.json").read_text())["bad_fraction"] == 1 / count
  assert len(read_csv(output / "quarantine.csv")) == 1 + 4 + 1
