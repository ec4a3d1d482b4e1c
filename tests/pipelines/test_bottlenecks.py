"""The bottlenecks stage as a user runs it: mixed images, bad ones, killed runs, two processes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import schema_utils

from beam_retrain.pipelines.bottlenecks import run
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.inference import load_model
from beam_retrain.transforms.core.records.schema import decode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.core.run.output_folder import read_info, read_labels
from beam_retrain.transforms.core.system.machine import available_cores
from tests.helpers import noise_image, python

EXACT = ("--precision=float32", "--runtime=tensorflow")

_KINDS = (("jpg", "JPEG", "RGB"), ("png", "PNG", "L"), ("bmp", "BMP", "RGB"), ("gif", "GIF", "L"), ("", "PNG", "RGBA"))


def lay_out(root: Path, per_class: int) -> Path:
  for label in ("ant", "bee"):
    (root / label).mkdir(parents=True)
    for number in range(per_class):
      extension, kind, mode = _KINDS[number % len(_KINDS)]
      name = f"{number}.{extension}" if extension else f"{number}"
      size = (10 + number % 40, 60 - number % 50)
      (root / label / name).write_bytes(noise_image(number, kind, size, mode))
  return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
  return lay_out(tmp_path_factory.mktemp("bottlenecks") / "tree", per_class=60)


def arguments(tree: Path, trunk: Path, output: Path, *more: str) -> list[str]:
  return [f"--input={tree}", f"--trunk={trunk}", f"--output={output}", *EXACT, *more]


def read_output(output: Path) -> dict[str, list]:
  found: dict[str, list] = {}
  for path in sorted((output / "records").glob("*.tfrecord")):
    with path.open("rb") as file:
      found.setdefault(path.name.split("-")[0], []).extend(map(decode_bottleneck, read_records(file, path.name)))
  return found


def digests(output: Path) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in (output / "records").glob("*.tfrecord")}


@pytest.fixture(scope="module")
def finished(tree, tiny_trunk, tmp_path_factory) -> Path:
  output = tmp_path_factory.mktemp("bottlenecks") / "finished"
  assert run(arguments(tree, tiny_trunk, output)) == 0
  return output


def test_each_image_of_each_format_once_with_the_vector_of_the_trunk(finished, tree, tiny_trunk):
  records = [record for split in read_output(finished).values() for record in split]
  assert sorted(record.key for record in records) == sorted(
    path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()
  )
  model = load_model(str(tiny_trunk))
  for record in records[::7]:
    expected = model.infer(model.preprocess([(tree / record.key).read_bytes()]))["bottleneck"][0]
    np.testing.assert_allclose(record.vector, expected, rtol=1e-4, atol=1e-5)
    assert record.class_index == ["ant", "bee"].index(record.label)
    assert record.key.startswith(record.label)


def test_the_folder_says_what_it_is(finished):
  info = read_info(str(finished), "bottlenecks")
  assert (info.trunk.input_px, info.labels) == (75, ["ant", "bee"])
  assert read_labels(str(finished)) == ["ant", "bee"]
  execution = {name: info.execution[name] for name in ("batch_size", "batch_size_reason", "threads_per_process")}
  assert execution == {"batch_size": 32, "batch_size_reason": "the default", "threads_per_process": available_cores()}
  assert info.others["schema"]["bottleneck"] == f"float32[{info.trunk.dimensions}]"
  stats = json.loads((finished / "stats.json").read_text())
  assert (stats["inputs"], stats["outputs"], stats["quarantined"]) == (120, 120, 0)
  assert (finished / "transform" / "transform_fn" / "saved_model.pb").exists()
  assert not (finished / "temp").exists()


def test_the_schema_file_says_how_the_records_are_parsed(finished):
  schema = text_format.Parse((finished / "schema.pbtxt").read_text(), schema_pb2.Schema())
  spec = schema_utils.schema_as_feature_spec(schema).feature_spec
  path = next(iter(sorted((finished / "records").glob("*.tfrecord"))))
  parsed = tf.io.parse_example(list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()), spec)
  with path.open("rb") as file:
    records = [decode_bottleneck(record) for record in read_records(file, path.name)]
  assert parsed["image/key"].numpy().tolist() == [record.key.encode() for record in records]
  assert parsed["image/height"].numpy().tolist() == [record.height for record in records]
  np.testing.assert_array_equal(parsed["bottleneck"].numpy(), [record.vector for record in records])


@pytest.fixture(scope="module")
def tree_with_bad_ones(tmp_path_factory) -> Path:
  tree = lay_out(tmp_path_factory.mktemp("bad") / "tree", per_class=60)
  (tree / "ant" / "empty.jpg").write_bytes(b"")
  (tree / "ant" / "cut.jpg").write_bytes(noise_image(1, "JPEG", (28, 28))[:-300])
  (tree / "bee" / "=cmd.jpg").write_bytes(b"this is text")
  (tree / "bee" / "palette.bmp").write_bytes(noise_image(2, "BMP", mode="P"))
  (tree / "bee" / "wide.png").write_bytes(noise_image(3, size=(100, 100), mode="L"))
  return tree


def test_bad_images_are_listed_and_cost_nothing_else(tree_with_bad_ones, finished, tiny_trunk, tmp_path, capsys):
  output = tmp_path / "bad"
  flags = arguments(tree_with_bad_ones, tiny_trunk, output, "--max_pixels=9999")
  assert run(flags) == 3
  assert "5 of 125 inputs are bad" in capsys.readouterr().err
  assert not (output / "COMPLETED").exists()
  with (output / "quarantine.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert {row["file_name"]: row["reason"] for row in rows} == {
    "ant/empty.jpg": "EMPTY",
    "ant/cut.jpg": "TRUNCATED",
    "bee/=cmd.jpg": "NOT_AN_IMAGE",
    "bee/palette.bmp": "UNSUPPORTED",
    "bee/wide.png": "TOO_LARGE",
  }
  assert {row["split"] for row in rows} <= {"training", "testing"}
  stats = json.loads((output / "stats.json").read_text())
  assert (stats["inputs"], stats["outputs"], stats["quarantined"]) == (125, 120, 5)
  for split, expected in read_output(finished).items():
    records = {record.key: record for record in read_output(output)[split]}
    assert sorted(records) == sorted(record.key for record in expected)
    for record in expected:
      np.testing.assert_allclose(records[record.key].vector, record.vector, rtol=1e-4, atol=1e-5)

  # The user accepts the loss: nothing is computed again.
  written = {path: path.stat().st_mtime_ns for path in (output / "records").glob("*.tfrecord")}
  assert run([*flags, "--max_bad_fraction=0.05"]) == 0
  assert (output / "COMPLETED").exists()
  assert {path: path.stat().st_mtime_ns for path in (output / "records").glob("*.tfrecord")} == written


def test_a_killed_run_goes_on_with_the_shards_that_were_not_finished(tiny_trunk, tmp_path):
  tree = tmp_path / "tree"
  for label in ("ant", "bee"):
    (tree / label).mkdir(parents=True)
    for number in range(1100):
      (tree / label / f"{number}.png").write_bytes(noise_image(number % 50, mode="L"))
  undisturbed, output = tmp_path / "undisturbed", tmp_path / "killed"
  assert run(arguments(tree, tiny_trunk, undisturbed)) == 0

  process = subprocess.Popen(
    [sys.executable, "-m", "beam_retrain.pipelines.bottlenecks", *arguments(tree, tiny_trunk, output)],
    start_new_session=True,
  )
  deadline = time.monotonic() + 120
  while not list((output / "records" / ".shards").glob("*.json")):
    assert process.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.01)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  assert not (output / "COMPLETED").exists()
  done = {path.name.removesuffix(".json") for path in (output / "records" / ".shards").glob("*.json")}
  assert 0 < len(done) < len(digests(undisturbed))
  before = {name: (output / "records" / name).stat().st_mtime_ns for name in done}
  (output / "records" / "training-00000-of-00099.tfrecord").write_bytes(b"of another shard count")

  assert run(arguments(tree, tiny_trunk, output)) == 0
  assert {name: (output / "records" / name).stat().st_mtime_ns for name in done} == before
  assert digests(output) == digests(undisturbed)
  assert not list((output / "records").glob("*.tmp-*"))


@pytest.mark.parametrize(
  ("more", "sentence"),
  [
    (("--testing_percentage=0.0001",), "no testing image of classes 'ant', 'bee': add images"),
    (("--testing_percentage=60", "--validation_percentage=40"), "leave nothing to train on"),
    (("--batch_size=0",), "0 is not at least 1"),
    (("--batch_size=many",), "--batch_size: 'many' is not a whole number"),
    (("--trunk_input_px=-1",), "-1 is not at least 1"),
    (("--trunk=/nowhere/at/all",), "is neither a folder nor a TF Hub handle"),
  ],
)
def test_what_cannot_work_is_told_before_the_long_work(tree, tiny_trunk, tmp_path, more, sentence):
  with pytest.raises(InputError, match=sentence):
    run(arguments(tree, tiny_trunk, tmp_path / "out", *more))
  assert not list(tmp_path.rglob("*.tfrecord"))


def test_an_earlier_output_is_not_given_up_for_a_job_that_cannot_begin(finished, tree, tiny_trunk, tmp_path):
  output = tmp_path / "kept"
  shutil.copytree(finished, output)
  before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
  with pytest.raises(InputError, match="no testing image"):
    run(arguments(tree, tiny_trunk, output, "--testing_percentage=0.0001"))
  assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_writes_neither_into_its_input_nor_over_anything_else(tree, tiny_trunk, tmp_path):
  with pytest.raises(InputError, match="overlaps with --input"):
    run(arguments(tree, tiny_trunk, tree / "bottlenecks"))
  (tmp_path / "thesis.txt").write_text("important")
  with pytest.raises(InputError, match="is not empty and was not written by beam-retrain"):
    run(arguments(tree, tiny_trunk, tmp_path))
  assert (tmp_path / "thesis.txt").read_text() == "important"


def test_a_run_killed_after_its_job_leaves_nothing_temporary_in_a_finished_folder(tree, tiny_trunk, tmp_path):
  output = tmp_path / "killed"
  killed = "import os; from beam_retrain.pipelines import bottlenecks; bottlenecks.report = lambda *_: os._exit(9);"
  done = python("-c", f"{killed} bottlenecks.run({arguments(tree, tiny_trunk, output)})", check=False)
  assert done.returncode == 9
  assert (output / "COMPLETED").exists()
  assert not (output / "temp").exists()
