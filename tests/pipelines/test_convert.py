"""convert: the tree, the records, and everything that can be wrong with the input."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from beam_retrain.pipelines import convert
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.core.run.exit_codes import run_command
from tests.helpers import ROOT

_NAMES = {"training": "train", "testing": "t10k"}
# Two shards of training images, one of testing images.
_COUNTS = {"training": 1100, "testing": 30}


def _images(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
  random = np.random.default_rng([count, len(split)])
  return random.integers(0, 256, (count, 6, 5), np.uint8), random.integers(0, 10, count, np.uint8)


def _write_idx(folder: Path, counts=None, gz=False, labels=None) -> Path:
  folder.mkdir(exist_ok=True)
  for split, count in (counts or _COUNTS).items():
    pixels, drawn = _images(split, count)
    for kind, array in (("images-idx3", pixels), ("labels-idx1", drawn if labels is None else labels[split])):
      data = encode_idx(array)
      (folder / f"{_NAMES[split]}-{kind}-ubyte{'.gz' * gz}").write_bytes(gzip.compress(data) if gz else data)
  return folder


def _convert(source: Path, output: Path, *flags: str) -> int:
  return convert.run(["--input", str(source), "--output", str(output), *flags])


def _hashes(folder: Path, *names: str) -> dict[str, str]:
  """Path -> hash of every file in the named entries of a folder."""
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.rglob("*")
    if path.is_file() and path.relative_to(folder).parts[0] in names and ".shards" not in path.parts
  }


_DATA = ("training", "testing", "records", "labels.txt", "stats.json", "quarantine.csv")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
  return _write_idx(tmp_path_factory.mktemp("idx"))


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory) -> Path:
  output = tmp_path_factory.mktemp("converted") / "out"
  assert _convert(source, output) == 0
  return output


def _expected_tree(folder: Path, extension: str) -> dict[str, str]:
  """An independent loop: Pillow saves each image under its own name."""
  for split, count in _COUNTS.items():
    pixels, labels = _images(split, count)
    for index in range(count):
      path = folder / split / str(labels[index]) / f"{index}.{extension}"
      path.parent.mkdir(parents=True, exist_ok=True)
      PIL.Image.fromarray(pixels[index]).save(path)
  return _hashes(folder, "training", "testing")


def test_the_tree_is_byte_for_byte_what_pillow_saves(converted, tmp_path):
  assert _hashes(converted, "training", "testing") == _expected_tree(tmp_path, "jpg")


def test_the_folder_holds_what_a_reader_asks_for(converted):
  assert sorted(os.listdir(converted)) == sorted(
    (
      *("COMPLETED", "config.toml", "info.json", "labels.txt", "quarantine.csv", "records", "stats.json"),
      *("testing", "training"),
    )
  )
  assert sorted(name for name in os.listdir(converted / "records") if name != ".shards") == [
    "testing-00000-of-00001.tfrecord",
    "training-00000-of-00002.tfrecord",
    "training-00001-of-00002.tfrecord",
  ]
  info = json.loads((converted / "info.json").read_text())
  assert (info["stage"], info["formats"]) == ("convert", ["jpg", "tfrecord"])
  assert info["labels"] == [str(number) for number in range(10)]
  assert (converted / "labels.txt").read_text() == "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"
  stats = json.loads((converted / "stats.json").read_text())
  assert list(stats["splits"]) == ["training", "testing"]
  for split, count in _COUNTS.items():
    counted = np.bincount(_images(split, count)[1], minlength=10)
    assert stats["splits"][split]["outputs"] == count
    assert stats["splits"][split]["labels"] == {str(label): int(n) for label, n in enumerate(counted) if n}


def _read_with_tensorflow(folder: Path, split: str) -> list[dict]:
  import tensorflow as tf

  spec = {
    **{
      name: tf.io.FixedLenFeature([], tf.string)
      for name in ("image/key", "image/encoded", "image/format", "image/class/text", "image/sha256")
    },
    **{name: tf.io.FixedLenFeature([], tf.int64) for name in ("image/height", "image/width", "image/class/label")},
  }
  paths = sorted(str(path) for path in (folder / "records").glob(f"{split}-*.tfrecord"))
  records = tf.data.TFRecordDataset(paths)
  return [
    {name: value.numpy() for name, value in tf.io.parse_single_example(record, spec).items()} for record in records
  ]


@pytest.mark.parametrize(
  ("formats", "extension", "format"), [("jpg,tfrecord", "jpg", b"jpeg"), ("tfrecord,png", "png", b"png")]
)
def test_tensorflow_and_pillow_read_the_records_back(source, tmp_path, formats, extension, format):
  assert _convert(source, tmp_path / "out", "--formats", formats) == 0
  for split, count in _COUNTS.items():
    pixels, labels = _images(split, count)
    records = _read_with_tensorflow(tmp_path / "out", split)
    assert [record["image/key"].decode() for record in records] == [
      f"{split}/{labels[index]}/{index}.{extension}" for index in range(count)
    ]
    for index, record in enumerate(records):
      encoded = record["image/encoded"]
      assert encoded == (tmp_path / "out" / record["image/key"].decode()).read_bytes()
      assert record["image/format"] == format
      assert (record["image/height"], record["image/width"]) == (6, 5)
      assert (record["image/class/label"], record["image/class/text"]) == (labels[index], str(labels[index]).encode())
      assert record["image/sha256"].decode() == hashlib.sha256(encoded).hexdigest()
    decoded = np.stack([np.asarray(PIL.Image.open(io.BytesIO(record["image/encoded"]))) for record in records])
    assert decoded.shape == pixels.shape
    if extension == "png":
      np.testing.assert_array_equal(decoded, pixels)


def test_gzip_gives_the_same_output(converted, tmp_path):
  assert _convert(_write_idx(tmp_path / "gz", gz=True), tmp_path / "out") == 0
  assert _hashes(tmp_path / "out", *_DATA) == _hashes(converted, *_DATA)


def test_as_a_command_it_forks_a_process_for_each_core_gives_the_same_bytes_and_never_loads_tensorflow(
  source, converted, tmp_path
):
  script = (
    "import sys; from beam_retrain.pipelines import convert; from beam_retrain.pipelines.jobs import forked_workers;"
    "forked_workers.available_cores = lambda: 2;"
    "code = convert.run(sys.argv[1:]);"
    "print(len(forked_workers._FORKED), [n for n in sys.modules if n.split('.')[0] in ('tensorflow', 'keras')]);"
    "sys.exit(code)"
  )
  ended = _run([sys.executable, "-c", script, "--input", str(source), "--output", str(tmp_path / "out")])
  assert (ended.returncode, ended.stderr) == (0, "")
  assert ended.stdout.splitlines()[-1] == "2 []"
  assert "training: 1,100 images in" in ended.stdout
  assert _hashes(tmp_path / "out", *_DATA) == _hashes(converted, *_DATA)


# Ctrl-C reaches all processes of a terminal's group; a scheduler, whose commands ignore SIGINT, sends SIGTERM to the
# command or to its whole group.
@pytest.mark.parametrize(
  ("number", "send", "on_sigint"),
  [
    (signal.SIGINT, os.kill, signal.default_int_handler),
    (signal.SIGINT, os.killpg, signal.default_int_handler),
    (signal.SIGTERM, os.kill, signal.SIG_IGN),
    (signal.SIGTERM, os.killpg, signal.SIG_IGN),
  ],
  ids=["SIGINT", "SIGINT to all", "SIGTERM", "SIGTERM to all"],
)
@pytest.mark.parametrize("flags", [[], ["--direct_num_workers=1"]], ids=["forked", "one process"])
def test_a_job_that_is_told_to_end_leaves_no_temporary_folder(tmp_path, number, send, on_sigint, flags):
  scratch, log = tmp_path / "scratch", tmp_path / "log"
  scratch.mkdir()
  source = _write_idx(tmp_path / "gz", {"training": 100_000, "testing": 30}, gz=True)
  command = [
    sys.executable,
    "-m",
    "beam_retrain.pipelines.cli",
    "convert",
    f"--input={source}",
    f"--output={tmp_path / 'out'}",
  ]
  with log.open("w") as said:
    job = subprocess.Popen(
      [*command, *flags],
      cwd=ROOT,
      env={**os.environ, "TMPDIR": str(scratch)},
      stderr=said,
      start_new_session=True,
      preexec_fn=lambda: signal.signal(signal.SIGINT, on_sigint),  # what runs the tests may ignore it, or not
    )
  try:
    while not list(scratch.glob("*/*/training")):  # the pixels that wait
      assert job.poll() is None, log.read_text()
      time.sleep(0.01)
    send(job.pid, number)
    assert job.wait(300) == 2
  finally:
    job.kill()
    job.wait()
  assert list(scratch.iterdir()) == []
  assert log.read_text() == "beam-retrain: interrupted; run the same command again to resume.\n"


def test_both_image_formats_side_by_side_and_records_hold_jpeg(source, converted, tmp_path):
  assert _convert(source, tmp_path / "out", "--formats", "png,jpg,tfrecord") == 0
  tree = _hashes(tmp_path / "out", "training", "testing")
  assert tree == _expected_tree(tmp_path / "p", "png") | _hashes(converted, "training", "testing")
  assert _hashes(tmp_path / "out", "records") == _hashes(converted, "records")


def test_only_the_tree_leaves_no_records(source, converted, tmp_path):
  assert _convert(source, tmp_path / "out", "--formats", "jpg") == 0
  assert _hashes(tmp_path / "out", *_DATA) == _hashes(converted, *(name for name in _DATA if name != "records"))


def test_only_records_leave_no_tree(source, converted, tmp_path):
  assert _convert(source, tmp_path / "out", "--formats", "tfrecord") == 0
  expected = [name for name in _DATA if name not in ("training", "testing")]
  assert _hashes(tmp_path / "out", *_DATA) == _hashes(converted, *expected)


def test_quality_is_pillows(source, tmp_path):
  assert _convert(source, tmp_path / "out", "--formats", "jpg", "--quality", "20") == 0
  pixels, labels = _images("testing", 30)
  PIL.Image.fromarray(pixels[3]).save(tmp_path / "3.jpg", quality=20)
  assert (tmp_path / f"out/testing/{labels[3]}/3.jpg").read_bytes() == (tmp_path / "3.jpg").read_bytes()


def test_a_bad_label_takes_no_other_image_with_it(tmp_path, capsys):
  counts = {"training": 4, "testing": 2}
  labels = {"training": np.array([1, 10, 9, 255], np.uint8), "testing": np.array([0, 1], np.uint8)}
  source = _write_idx(tmp_path / "idx", counts, labels=labels)
  output = tmp_path / "out"
  assert _convert(source, output, "--classes", "10") == 3
  assert "2 BAD_LABEL" in capsys.readouterr().err
  assert not (output / "COMPLETED").exists()
  with open(output / "quarantine.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  assert [(row["file_name"], row["split"], row["size_bytes"], row["reason"]) for row in rows] == [
    ("training/10/1", "training", "30", "BAD_LABEL"),
    ("training/255/3", "training", "30", "BAD_LABEL"),
  ]
  assert sorted(_hashes(output, "training")) == ["training/1/0.jpg", "training/9/2.jpg"]
  assert _convert(source, output, "--classes", "10", "--max_bad_fraction", "0.34") == 0
  assert (output / "COMPLETED").exists()
  assert _convert(source, output, "--classes", "256") == 0
  assert sorted(os.listdir(output / "training")) == ["1", "10", "255", "9"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_rerun_with_fewer_images_leaves_no_stale_files(killed, converted, tmp_path):
  idx, output = tmp_path / "idx", tmp_path / "out"
  _write_idx(idx, {"training": 2100, "testing": 30})
  assert _convert(idx, output) == 0
  if killed:
    (output / "COMPLETED").unlink()
  _write_idx(idx)
  assert _convert(idx, output) == 0
  assert _hashes(output, *_DATA) == _hashes(converted, *_DATA)
  assert _convert(idx, output, "--formats", "jpg") == 0
  assert not (output / "records").exists()


def test_a_killed_run_goes_on_with_what_is_missing(source, converted, tmp_path):
  output = tmp_path / "out"
  assert _convert(source, output) == 0
  # What a kill leaves: no marker, one shard finished, another half written.
  (output / "COMPLETED").unlink()
  finished = output / "records/training-00000-of-00002.tfrecord"
  before = finished.stat().st_ino
  (output / "records/training-00001-of-00002.tfrecord").unlink()
  label = str(_images("training", 1100)[1][1099])
  (output / "training" / label / "1099.jpg").unlink()
  (output / "training" / label / "1099.jpg.tmp-0123").write_bytes(b"half")
  assert _convert(source, output) == 0
  assert finished.stat().st_ino == before
  assert _hashes(output, *_DATA) == _hashes(converted, *_DATA)


def test_a_foreign_folder_is_refused_and_left_alone(source, tmp_path):
  (tmp_path / "thesis.txt").write_text("mine")
  with pytest.raises(InputError, match="not empty and was not written by beam-retrain"):
    _convert(source, tmp_path)
  assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--formats", "jpeg"], "'jpeg' is not one of jpg, png, tfrecord"),
    (["--formats", ""], "'' is not one of"),
    (["--quality", "0"], "0 is not between 1 and 100"),
    (["--classes", "257"], "257 is not between 1 and 256"),
    (["--qality", "50"], "the nearest flag is --quality"),
  ],
)
def test_wrong_flags_are_a_sentence(source, tmp_path, flags, said):
  with pytest.raises(InputError) as error:
    _convert(source, tmp_path / "out", *flags)
  assert said in str(error.value)
  assert not (tmp_path / "out").exists()


def test_a_damaged_file_ends_with_a_sentence(tmp_path, capsys):
  source = _write_idx(tmp_path / "idx", {"training": 3, "testing": 2})
  labels = source / "t10k-labels-idx1-ubyte"
  labels.write_bytes(labels.read_bytes()[:-1])
  assert run_command(convert.run, ["--input", str(source), "--output", str(tmp_path / "out")]) == 2
  assert capsys.readouterr().err.splitlines() == [
    f"beam-retrain: {labels}: byte 9: the file ends here, but 2 labels take 10 bytes: get the file again."
  ]


def test_help_teaches(capsys):
  with pytest.raises(SystemExit, match="0"):
    convert.run(["--help"])
  shown = capsys.readouterr().out
  for word in ("reads", "writes", "example", "beam-retrain convert --input mnist", "--quality", "--max_bad_fraction"):
    assert word in shown


def _run(command: list[str]) -> subprocess.CompletedProcess:
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


# Images per label as published with MNIST.
_MNIST_LABELS = {
  "training": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
  "testing": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


def test_mnist_has_as_many_images_per_label_as_published(mnist_folder, tmp_path):
  assert _convert(mnist_folder, tmp_path / "out", "--formats", "tfrecord") == 0
  stats = json.loads((tmp_path / "out" / "stats.json").read_text())
  for split, counts in _MNIST_LABELS.items():
    assert stats["splits"][split]["labels"] == {str(label): count for label, count in enumerate(counts)}
