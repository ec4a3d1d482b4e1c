"""`verify --same`: real outputs of every stage made twice, and with one thing changed at a time."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from beam_retrain.pipelines import bottlenecks, convert, evaluate
from beam_retrain.pipelines.cli import main
from beam_retrain.pipelines.reevaluate import command as reevaluate
from beam_retrain.trainer import task
from beam_retrain.transforms.core.records.schema import decode_bottleneck, encode_bottleneck
from beam_retrain.transforms.core.records.tfrecord import frame, read_records
from beam_retrain.transforms.core.run.output_folder import complete_folder


@pytest.fixture(scope="module")
def twice(made, tmp_path_factory) -> dict[str, tuple[Path, Path]]:
  """Stage -> two outputs of it, in other folders, by other command lines: the default runner's and Beam's."""
  work = tmp_path_factory.mktemp("twice")
  found = {}
  for number, runner in ((1, ()), (2, ("--runner=FnApiRunner",))):
    folder = work / str(number)
    folder.mkdir()
    data = Path(shutil.copytree(made.data, folder / "data"))
    trunk = f"--trunk={made.bottlenecks.parent / 'trunk'}"
    flags = ["--testing_percentage=30", *runner]
    if number == 1:
      shutil.copytree(made.bottlenecks, folder / "bottlenecks")
    else:
      assert bottlenecks.run([f"--input={data}", f"--output={folder / 'bottlenecks'}", trunk, *flags]) == 0
    lite = [f"--tflite_int8_output_file={folder}/int8_{number}.tflite"]
    assert task.run([f"--input={folder / 'bottlenecks'}", f"--output={folder / 'model'}", "--rounds=9", *lite]) == 0
    model = [f"--model={folder / 'model'}", f"--input={data}", *runner]
    assert evaluate.run([*model, f"--output={folder / 'evaluation'}"]) == 0
    assert reevaluate.run([*model, f"--history={folder / 'nights'}", f"--date=2026-01-0{number}"]) == 0
    idx = work / "idx"
    if number == 1:
      lay_out_idx(idx)
    formats = "--formats=jpg,tfrecord"
    assert convert.run([f"--input={idx}", f"--output={folder / 'pictures'}", formats, *runner]) == 0
    for stage in ("bottlenecks", "model", "evaluation", "pictures", f"nights/2026-01-0{number}"):
      found.setdefault(stage.split("/")[0], []).append(folder / stage)
  return {stage: tuple(folders) for stage, folders in found.items()}


def lay_out_idx(folder: Path) -> None:
  from beam_retrain.transforms.core.images.idx import encode_idx

  folder.mkdir()
  rng = np.random.default_rng(3)
  for split in ("train", "t10k"):
    (folder / f"{split}-images-idx3-ubyte").write_bytes(encode_idx(rng.integers(0, 256, (40, 6, 5), dtype=np.uint8)))
    (folder / f"{split}-labels-idx1-ubyte").write_bytes(encode_idx((np.arange(40) % 10).astype(np.uint8)))


def same(first: Path, second: Path, capsys) -> tuple[int, str]:
  """Returns the exit code, and the one line that was said."""
  capsys.readouterr()
  code = main(["verify", "--same", str(first), str(second)])
  out, err = capsys.readouterr()
  (line,) = (out + err).splitlines()
  return code, line


STAGES = ("bottlenecks", "model", "evaluation", "pictures", "nights")


@pytest.mark.parametrize("stage", STAGES)
def test_two_runs_hold_the_same(stage, twice, capsys):
  first, second = twice[stage]
  # Byte by byte they do not: there is something that has to be left out.
  assert (first / "info.json").read_bytes() != (second / "info.json").read_bytes()
  code, line = same(first, second, capsys)
  assert code == 0, line
  assert line.startswith("the same: ")
  files, records = (int(word.replace(",", "")) for word in line.split() if word[0].isdigit())
  assert files >= 8
  assert records > {"bottlenecks": 1797, "evaluation": 1797, "nights": 1797, "pictures": 160, "model": 10}[stage]


def change_record(folder: Path) -> None:
  path = sorted((folder / "records").glob("training-*"))[0]
  with path.open("rb") as file:
    records = list(read_records(file, path.name))
  bottleneck = decode_bottleneck(records[5])
  vector = bottleneck.vector + 0.5 * (np.arange(len(bottleneck.vector)) == 7).astype(np.float32)
  records[5] = encode_bottleneck(dataclasses.replace(bottleneck, vector=vector))
  path.write_bytes(b"".join(map(frame, records)))


def change_row(folder: Path) -> None:
  path = folder / "predictions.csv"
  lines = path.read_text().splitlines(keepends=True)
  cells = lines[3].split(",")
  cells[3] = "12.5000"
  lines[3] = ",".join(cells)
  path.write_text("".join(lines))


def change_file(name: str, old: bytes, new: bytes):
  def change(folder: Path) -> None:
    data = (folder / name).read_bytes()
    assert old in data
    (folder / name).write_bytes(data.replace(old, new, 1))

  return change


def add_leak(folder: Path) -> None:
  with (folder / "leaks.csv").open("a") as file:
    file.write(f"different_labels,{'ab' * 32},a.png,training,zebra\n")


def change_batch_size(folder: Path) -> None:
  path = folder / "info.json"
  info = json.loads(path.read_text())
  info["settings"]["batch_size"] = 99
  path.write_text(json.dumps(info))


def change_kind(folder: Path) -> None:
  change_record(folder)
  path = folder / "info.json"
  info = json.loads(path.read_text())
  info["trunk"] |= {"precision": "bfloat16", "runtime": "openvino"}
  path.write_text(json.dumps(info))


def change_image(folder: Path) -> None:
  path = sorted((folder / "testing").glob("*/*.jpg"))[0]
  data = path.read_bytes()
  path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])


@pytest.mark.parametrize(
  ("stage", "change", "words"),
  [
    ("bottlenecks", change_record, ("records/training-00000-of-0000", ": record 5 (", "): bottleneck[7] is ")),
    ("bottlenecks", change_kind, ("the second in bfloat16 by OpenVINO: give --precision and --runtime to both",)),
    ("bottlenecks", change_batch_size, ("info.json: settings.batch_size is 32, in the second 99",)),
    ("bottlenecks", change_file("labels.txt", b"mule", b"mile"), ("labels.txt: byte ", "is 0x75, in the second 0x69")),
    ("bottlenecks", add_leak, ("leaks.csv: row ", " (different_labels) is only in the second")),
    ("evaluation", change_row, ("predictions.csv: row 3 (", "): confidence is '", "in the second '12.5000'")),
    ("evaluation", change_file("metrics.json", b'"correct": ', b'"correct": 9'), ("metrics.json: ", "correct is ")),
    ("model", change_file("retrained_labels.txt", b"yak", b"gnu"), ("retrained_labels.txt: byte ",)),
    ("nights", change_row, ("predictions.csv: row 3 (",)),
    ("pictures", change_image, ("testing/0/0.jpg: byte 100 is 0x",)),
  ],
)
def test_one_change_is_found_and_named(stage, change, words, twice, tmp_path, capsys):
  first, second = twice[stage]
  copy = Path(shutil.copytree(second, tmp_path / "copy"))
  change(copy)
  complete_folder(str(copy))  # as another run would have written it
  code, line = same(first, copy, capsys)
  assert code == 1
  assert all(word in line for word in words), line
  assert same(copy, second, capsys)[0] == 1


def test_what_was_refused_beside_an_output_is_not_of_it(twice, tmp_path, capsys):
  first, second = twice["bottlenecks"]
  copy = Path(shutil.copytree(second, tmp_path / "copy"))
  (copy / "leaks.refused.csv").write_text("kind,sha256,file_name,split,label\n")
  assert same(first, copy, capsys)[0] == 0


def test_a_head_with_one_other_number(twice, tmp_path, capsys):
  from beam_retrain.transforms.core.models.head import decode_head, encode_head

  first, second = twice["model"]
  copy = Path(shutil.copytree(second, tmp_path / "copy"))
  head = decode_head((copy / "head.npz").read_bytes(), "head.npz")
  head.kernel[2, 3] += 1
  (copy / "head.npz").write_bytes(encode_head(head))
  complete_folder(str(copy))
  code, line = same(first, copy, capsys)
  assert code == 1
  assert "head.npz: kernel[23] is " in line


def test_what_is_in_two_folders_alike_is_the_same_folder_twice(made, capsys):
  assert same(made.bottlenecks, made.bottlenecks, capsys)[0] == 0


def test_an_image_that_is_gone(twice, tmp_path, capsys):
  first, second = twice["pictures"]
  copy = Path(shutil.copytree(second, tmp_path / "copy"))
  (copy / "testing/0/0.jpg").unlink()
  code, line = same(first, copy, capsys)
  assert code == 1
  assert "testing/0/0.jpg is only in the first" in line


def test_folders_that_cannot_be_compared(twice, tmp_path, capsys):
  first, second = twice["bottlenecks"]
  unfinished = Path(shutil.copytree(second, tmp_path / "unfinished"))
  (unfinished / "COMPLETED").unlink()
  for other, words in (
    (unfinished, "is not finished"),
    (tmp_path, "has no info.json of beam-retrain"),
    (tmp_path / "gone", "has no info.json of beam-retrain"),
    (twice["model"][0], "by `beam-retrain train`: give two outputs of the same command"),
  ):
    code, line = same(first, other, capsys)
    assert code == 2
    assert words in line
  damaged = Path(shutil.copytree(second, tmp_path / "damaged"))
  path = sorted((damaged / "records").glob("*.tfrecord"))[0]
  path.write_bytes(path.read_bytes()[:-5])
  complete_folder(str(damaged))
  code, line = same(first, damaged, capsys)
  assert code == 2
  assert "ends inside the record" in line
