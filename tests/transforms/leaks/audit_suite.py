"""Real digits with planted doubles in each form of input, the plain loop that finds them, and jobs."""

from __future__ import annotations

import gzip
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain.pipelines.convert import run as convert
from beam_retrain.pipelines.jobs.runner import runner_for
from beam_retrain.transforms.bottlenecks.embed import EmbedShard
from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler
from beam_retrain.transforms.bottlenecks.reuse import EmbedOnlyNew
from beam_retrain.transforms.bottlenecks.store import record_files
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.images.idx import encode_idx, read_header, read_items
from beam_retrain.transforms.core.records.leaks import OnLeak, leaks_csv
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER, decode_bottleneck, decode_image
from beam_retrain.transforms.core.records.shards import Shard, unpack
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.system.machine import Threads
from beam_retrain.transforms.io.files import write_text
from beam_retrain.transforms.leaks.audit import AuditImages, SplitAudit, drop_leaks
from beam_retrain.transforms.shards.ledger import CloseLedger
from beam_retrain.transforms.shards.work import WorkShards
from beam_retrain.transforms.sources.find import find_source
from tests.helpers import read_csv

PERCENTAGES = SplitPercentages()


TRAINING, TESTING = 2200, 600


NO_TRUNK = ImageModelHandler("/nowhere/trunk")


TWO_PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


HEADER = ["kind", "sha256", "file_name", "split", "label"]


class Image(NamedTuple):
  """An image as a plain reader knows it; `given`: the split that its data set says, if it does."""

  key: str
  label: str
  given: str | None
  encoded: bytes
  percentages: SplitPercentages = PERCENTAGES

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
  for split, prefix, count in (("training", "train", TRAINING), ("testing", "t10k", TESTING)):
    for name, dimensions, found in (("images-idx3", 3, pixels), ("labels-idx1", 1, labels)):
      path = mnist_folder / f"{prefix}-{name}-ubyte.gz"
      with gzip.open(path) as file:
        header = read_header(file, path.name, dimensions)
        data = read_items(file, header, 0, count, path.name)
      found[split] = np.frombuffer(data, np.uint8).reshape(count, *header.dimensions[1:]).copy()
  rng = np.random.default_rng(3)
  places = [("training", number) for number in range(TRAINING)] + [("testing", number) for number in range(TESTING)]
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
    and PERCENTAGES.split_of(f"training/{labels[split][number]}/{number}.png", split) == "validation"
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


# Jobs.


def execute(build, *flags: str) -> None:
  options = PipelineOptions(flags=list(flags))
  pipeline = beam.Pipeline(runner_for(options), options=options)
  build(pipeline)
  pipeline.run().wait_until_finish()


def write_shard(shard: Shard, labels: list[str], folder: str) -> None:
  lines = [f"{item.key}\t{getattr(item, 'reason', 'kept')}" for item in shard.read_images(labels)]
  (Path(folder) / shard.name()).write_text("\n".join(lines))


def audit_images(
  path: Path, folder: Path, percentages: SplitPercentages = PERCENTAGES
) -> tuple[list[list[str]], dict[str, str]]:
  """Returns the rows of the leaks, and what became of each key where they were dropped: 'kept' or the reason."""
  folder.mkdir()
  source = find_source(str(path))

  def build(root: beam.Pipeline) -> None:
    shards = root | "Plan" >> source.plan(("training", "testing"), percentages)
    audit = SplitAudit(OnLeak.DROP, source.labels, percentages, MAX_PIXELS, Threads(1))
    audited = shards | "Audit" >> AuditImages(audit)
    leaks = audited | "Leaks" >> beam.FlatMapTuple(lambda _, packed: unpack(packed)) | beam.combiners.ToList()
    _ = leaks | "Write" >> beam.Map(lambda leaks, path: write_text(path, leaks_csv(leaks)), str(folder / "leaks.csv"))
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
  assert header == HEADER
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
  percentages: SplitPercentages = PERCENTAGES,
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


@pytest.fixture(scope="module")
def warned(idx_folder, handler, tmp_path_factory) -> Path:
  return embed(idx_folder, handler, tmp_path_factory.mktemp("audit") / "warned")


@pytest.fixture(scope="module")
def dropped(idx_folder, handler, tmp_path_factory) -> Path:
  return embed(idx_folder, handler, tmp_path_factory.mktemp("audit") / "dropped", OnLeak.DROP)


@pytest.fixture(scope="module")
def converted(idx_folder, tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp("audit") / "converted"
  flags = [f"--input={idx_folder}", f"--output={folder}", "--formats=jpg,tfrecord"]
  assert convert(flags) == 0
  return folder
