"""`bottlenecks --on_leak` as a user runs it: warn, drop, fail."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from beam_retrain.pipelines.bottlenecks import run
from beam_retrain.transforms.bottlenecks.store import record_files
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.encode import encode_pixels
from beam_retrain.transforms.core.records.quarantine import OnLeak
from beam_retrain.transforms.core.records.schema import REPORTS_FOLDER
from tests.helpers import file_contents, read_csv
from tests.transforms.leaks.audit_suite import (
  HEADER,
  PERCENTAGES,
  converted,
  digits,
  embed,
  handler,
  idx_folder,
  plain_counts,
  plain_leaks,
  read_folders,
  trunk_folder,
)

__all__ = ["converted", "digits", "handler", "idx_folder", "trunk_folder"]  # fixtures

# As a user runs it.


def arguments(path: Path, trunk: Path, output: Path, *more: str) -> list[str]:
  return [f"--input={path}", f"--trunk={trunk}", f"--output={output}", *more]


def name_in(split: str, folder: Path, start: int) -> Path:
  """Returns the path of an image, numbered from `start` on, that falls into a split."""
  numbers = range(start, start + 1000)
  return next(folder / f"{n}.png" for n in numbers if PERCENTAGES.split_of(f"{folder.name}/{n}.png") == split)


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
  assert read_csv(output / "leaks.csv") == [HEADER, *rows]
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
      f"beam-retrain: {_LINES[0]} and {_LINES[1]}: see {output}/leaks.csv; fix them, or exclude them with"
      " --on_leak drop."
    )
    assert read_csv(output / "leaks.csv") == [HEADER, *rows]
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
  before = file_contents(output)

  for key in conflicting | leaked:
    shutil.copy(small / key, tree / key)
  assert run(flags) == 1
  assert f"see {output}/leaks.refused.csv; fix them" in capsys.readouterr().err
  after = file_contents(output)
  text = after.pop("leaks.refused.csv").decode()
  assert list(csv.reader(io.StringIO(text))) == [HEADER, *rows]
  assert after == before

  for key in conflicting | leaked:
    (tree / key).unlink()
  assert run(flags) == 0
  assert not (output / "leaks.refused.csv").exists()
  assert (output / "COMPLETED").exists()


def test_another_commands_output_is_not_written_into(small, trunk_folder, converted, tmp_path):
  output = tmp_path / "converted"
  shutil.copytree(converted, output)
  before = file_contents(output)
  with pytest.raises(InputError, match="holds the output of `beam-retrain convert`"):
    run(arguments(small, trunk_folder, output, "--on_leak=fail"))
  assert file_contents(output) == before


def test_a_class_that_dropping_leaves_empty_is_told_before_anything_is_lost(small, trunk_folder, tmp_path):
  tree, output = tmp_path / "tree", tmp_path / "out"
  shutil.copytree(small, tree)
  (tree / "2").mkdir()
  zero = next(image for image in read_folders(small) if image.split == "training" and image.label == "0")
  for number, split in enumerate(("training", "validation", "testing")):
    encoded = zero.encoded if split == "testing" else encode_pixels(np.full((9, 9), number, np.uint8), "png")
    name_in(split, tree / "2", 0).write_bytes(encoded)
  assert run(arguments(tree, trunk_folder, output)) == 0
  before = file_contents(output)
  with pytest.raises(InputError) as raised:
    run(arguments(tree, trunk_folder, output, "--on_leak=drop"))
  assert str(raised.value) == (
    "--on_leak drop leaves no testing image of class '2': list the leaks with --on_leak warn and fix them,"
    " add images, or remove the class."
  )
  assert file_contents(output) == before


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
    assert read_csv(output / "leaks.csv") == [HEADER, *rows]
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
  assert f"1 of {count} inputs is bad (1 EMPTY): see" in capsys.readouterr().err
  assert json.loads((output / "stats.json").read_text())["bad_fraction"] == 1 / count
  assert len(read_csv(output / "quarantine.csv")) == 1 + 4 + 1
