"""Images that `convert` wrote without records: their readers notice what has changed since."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from beam_retrain.pipelines import bottlenecks, convert, evaluate
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.sources.find import find_source
from tests.helpers import read_csv


@pytest.fixture(scope="module")
def converted(made: Any, draw_digits: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """Three hundred digits in class folders, as JPGs."""
  work = tmp_path_factory.mktemp("converted")
  draw_digits(work / "data", 300, lambda number, label: f"{label}/{number}.png")
  assert convert.run([f"--input={work / 'data'}", f"--output={work / 'jpg'}", "--formats=jpg"]) == 0
  return work / "jpg"


@pytest.fixture
def folder(converted: Path, tmp_path: Path) -> Path:
  return Path(shutil.copytree(converted, tmp_path / "jpg"))


def _flip(path: Path) -> None:
  """Flips a bit of the pixels' data, with which the image is another that can be read."""
  data = path.read_bytes()
  for place in range(len(data) - 20, 0, -1):
    flipped = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
    try:
      is_other = not np.array_equal(*(np.asarray(PIL.Image.open(io.BytesIO(each))) for each in (data, flipped)))
    except OSError:
      continue
    if is_other:
      break
  path.write_bytes(flipped)


def _bad(output: Path) -> list[list[str]]:
  return [[name, reason, detail] for name, _, _, reason, detail in read_csv(output / "quarantine.csv")[1:]]


def test_it_is_told_where_the_records_are_read_and_a_class_folder_has_changed(draw_digits, tmp_path):
  draw_digits(tmp_path / "data", 20, lambda number, label: f"{label}/{number}.png")
  assert convert.run([f"--input={tmp_path / 'data'}", f"--output={tmp_path / 'both'}"]) == 0
  assert [*find_source(str(tmp_path / "both")).notes()] == []
  moved = next((tmp_path / "both").glob("*/*.jpg"))
  moved.rename(
    next(path for path in (tmp_path / "both").glob("*/*.jpg") if path.parent != moved.parent).parent / "x.jpg"
  )
  assert [*find_source(str(tmp_path / "both")).notes()] == [
    f"{tmp_path / 'both' / 'records'} is read as it was written, but images were moved, added or deleted in the class"
    f" folders beside it: delete records, COMPLETED and info.json in {tmp_path / 'both'} to have them read"
  ]
  shutil.rmtree(tmp_path / "both" / "records")
  for name in ("COMPLETED", "info.json"):
    (tmp_path / "both" / name).unlink()
  assert find_source(str(tmp_path / "both")).name.startswith("a folder with")


@pytest.mark.parametrize("command", ["bottlenecks", "evaluate"])
def test_a_flipped_bit_is_noticed_and_can_be_accepted(command, made, folder, tmp_path, capsys):
  given = {
    "bottlenecks": (
      bottlenecks.run,
      [f"--trunk={made.bottlenecks.parent / 'trunk'}", "--testing_percentage=30", "--validation_percentage=20"],
    ),
    "evaluate": (evaluate.run, [f"--model={made.model}"]),
  }
  run, flags = given[command]
  flags = [*flags, f"--input={folder}", f"--output={tmp_path / 'out'}"]
  _flip(folder / "ant" / "1.jpg")
  assert run(flags) == 3
  remedy = f"repeat that; if you changed it yourself, delete COMPLETED and info.json in {folder}"
  assert _bad(tmp_path / "out") == [
    ["ant/1.jpg", "UNREADABLE", f"has changed since `beam-retrain convert` wrote it: {remedy}"]
  ]
  assert "1 of 300 inputs is bad (1 UNREADABLE)" in capsys.readouterr().err
  assert not (tmp_path / "out" / "COMPLETED").exists()

  for name in ("COMPLETED", "info.json"):
    (folder / name).unlink()
  assert run(flags) == 0
  assert _bad(tmp_path / "out") == []


def _read(path: Path) -> Iterator[str]:
  """Yields the keys of the images that can be used."""
  return (image.key for image in find_source(str(path)).read_all(("all",), None) if isinstance(image, Image))


def test_new_moved_and_deleted_images_are_the_users_own_business(folder):
  (folder / "ant" / "1.jpg").rename(folder / "bee" / "moved.jpg")
  shutil.copyfile(folder / "zebra" / "0.jpg", folder / "zebra" / "copy.jpg")
  (folder / "cow" / "new.jpg").write_bytes((folder / "zebra" / "0.jpg").read_bytes() + b"\n")
  keys = set(_read(folder))
  assert len(keys) == 302
  assert {"bee/moved.jpg", "zebra/copy.jpg", "cow/new.jpg"} <= keys


def test_a_folder_converted_again_while_this_process_runs_is_known(folder, converted):
  assert len(set(_read(folder))) == 300
  again = folder.parent / "again"
  data = converted.parent / "data"
  assert convert.run([f"--input={data}", f"--output={again}", "--formats=jpg", "--quality=50"]) == 0
  shutil.rmtree(folder)
  again.rename(folder)
  assert len(set(_read(folder))) == 300


def test_an_image_of_a_folder_whose_list_was_deleted_while_this_process_runs_is_the_users_own(folder):
  """As the sentence on a changed image advises."""
  assert len(set(_read(folder))) == 300
  for name in ("COMPLETED", "info.json"):
    (folder / name).unlink()
  with (folder / "ant" / "1.jpg").open("ab") as file:
    file.write(b"\n")
  assert len(set(_read(folder))) == 300


def test_one_split_of_a_converted_folder_is_checked_too(draw_digits, tmp_path):
  draw_digits(
    tmp_path / "data", 40, lambda number, label: f"{('training', 'testing')[number // 10 % 2]}/{label}/{number}.png"
  )
  output = tmp_path / "jpg"
  assert convert.run([f"--input={tmp_path / 'data'}", f"--output={output}", "--formats=jpg"]) == 0
  _flip(next((output / "training" / "ant").iterdir()))
  assert len(set(_read(output / "training"))) == 19
