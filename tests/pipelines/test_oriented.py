"""Images with an EXIF orientation: used as stored, counted, and told once with what to type."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beam_retrain.pipelines import bottlenecks, convert, evaluate, predict
from beam_retrain.pipelines.reevaluate import command as reevaluate
from tests.conftest import EXACT
from tests.helpers import read_json


@pytest.fixture(scope="module")
def turned_images(tmp_path_factory) -> Path:
  """12 images of each of the trained model's classes, some of them turned: 5, of 36."""
  folder, random = tmp_path_factory.mktemp("turned") / "phone photos", np.random.default_rng(5)
  for label, brightness in (("black", 0), ("grey", 95), ("white", 190)):
    (folder / label).mkdir(parents=True)
    for number in range(12):
      exif = Image.Exif()
      exif[0x0112] = 6 if number < 2 and label != "white" else 3 if (label, number) == ("white", 11) else 1
      pixels = random.integers(0, 60, (30, 42, 3), dtype=np.uint8) + np.uint8(brightness)
      kind = ("jpg", "png")[number % 2]
      Image.fromarray(pixels).save(folder / label / f"{number}.{kind}", exif=exif)
  return folder


def _said(source: Path, images: int = 36) -> str:
  return (
    f"5 of {images} images have an EXIF orientation and were used as stored; to turn them upright:"
    f" beam-retrain convert --input '{source}' --output '{source}_upright'"
  )


@pytest.fixture
def flags(turned_images, tiny_trunk, tmp_path) -> list[str]:
  given = [f"--input={turned_images}", f"--trunk={tiny_trunk}", f"--output={tmp_path / 'out'}"]
  return [*given, "--testing_percentage=30", *EXACT]


def test_bottlenecks_counts_and_tells_them(turned_images, flags, tmp_path, capsys):
  assert bottlenecks.run(flags) == 0
  assert capsys.readouterr().err.count(_said(turned_images)) == 1
  assert read_json(tmp_path / "out/stats.json")["oriented"] == 5


def test_evaluations_count_and_tell_them_computed_or_reused(turned_images, trained_model, tmp_path, capsys):
  flags = ["--model", str(trained_model), "--input", str(turned_images), "--split=all", *EXACT]
  assert evaluate.run([*flags, "--output", str(tmp_path / "out")]) == 0
  assert capsys.readouterr().err.count(_said(turned_images)) == 1
  assert read_json(tmp_path / "out/stats.json")["oriented"] == 5
  for date in ("2026-01-01", "2026-01-02"):
    assert reevaluate.run([*flags, "--history", str(tmp_path / "nights"), f"--date={date}"]) == 0
    assert capsys.readouterr().err.count(_said(turned_images)) == 1
    assert read_json(tmp_path / "nights" / date / "stats.json")["oriented"] == 5


def test_accepted_bad_images_are_accepted_by_the_next_command_too(turned_images, flags, capsys):
  assert bottlenecks.run([*flags, "--max_bad_fraction=0.02"]) == 0
  assert f"{_said(turned_images)} --max_bad_fraction=0.02\n" in capsys.readouterr().err


def test_what_is_said_beside_bad_images_accepts_them(turned_images, flags, tmp_path, capsys):
  folder = tmp_path / "photos"
  shutil.copytree(turned_images, folder)
  (folder / "white" / "broken.jpg").write_bytes(b"")
  assert bottlenecks.run([f"--input={folder}", *flags[1:]]) == 3
  (said,) = [line for line in capsys.readouterr().err.splitlines() if "EXIF" in line]
  words = shlex.split(said.partition("beam-retrain convert ")[2])
  assert convert.run(words) == 0


def test_what_predict_says_can_be_typed_and_then_says_nothing(
  turned_images, trained_model, tmp_path, capsys, monkeypatch
):
  (tmp_path / "here").mkdir()
  monkeypatch.chdir(tmp_path / "here")
  flat = tmp_path / "phone photos"
  shutil.copytree(turned_images / "black", flat)
  assert predict.run(["--model", str(trained_model), str(flat)]) == 0
  (said,) = [line for line in capsys.readouterr().err.splitlines() if "EXIF" in line]
  assert said.startswith("2 of 12 images have an EXIF orientation")
  assert said.endswith(f"beam-retrain convert --input '{flat}' --output 'phone photos_upright'")
  assert convert.run(["--input", str(flat), "--output", "phone photos_upright"]) == 0
  capsys.readouterr()
  assert predict.run(["--model", str(trained_model), "phone photos_upright/phone photos"]) == 0
  assert "EXIF" not in capsys.readouterr().err
