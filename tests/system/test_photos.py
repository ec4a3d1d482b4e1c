"""Photos as they are downloaded: class folders, and a LICENSE.txt beside them, in every command that reads images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image as Pillow
from sklearn.datasets import load_sample_images

from beam_retrain.pipelines.cli import main

CLASSES = {"china": 0, "flower": 1}
TILE_PX = 80


class Photos(NamedTuple):
  """Tiles of two real photos in class folders, and what `run` makes of them."""

  data: Path
  output: Path

  @property
  def model(self) -> str:
    return str(self.output / "train")


def cut_tiles(folder: Path) -> None:
  """Writes tiles of scikit-learn's photos as JPEGs, 56 of each, as flower_photos has them."""
  for label, number in CLASSES.items():
    (folder / label).mkdir(parents=True)
    pixels = load_sample_images().images[number]
    for top, left in np.ndindex(7, 8):
      tile = pixels[55 * top : 55 * top + TILE_PX, 70 * left : 70 * left + TILE_PX]
      Pillow.fromarray(tile).save(folder / label / f"{top}{left}_a1b2c3_n.jpg", quality=90)
  (folder / "LICENSE.txt").write_text("All images in this archive are licensed under CC-BY.\n")


@pytest.fixture(scope="module")
def photos(make_once: Callable, tiny_trunk: Path) -> Photos:
  def make(work: Path) -> None:
    cut_tiles(work / "flower_photos")
    flags = [f"--trunk={tiny_trunk}", "--testing_percentage=30", "--flip_left_right", "--distortion_copies=1"]
    output = f"--output={work / 'output'}"
    assert main(["run", f"--data={work / 'flower_photos'}", output, *flags, "--epochs=20"]) == 0

  work = make_once("flower_photos", make)
  return Photos(work / "flower_photos", work / "output")


def stats(folder: Path) -> dict:
  return json.loads((folder / "stats.json").read_text())


def test_run_uses_every_photo_and_nothing_else(photos):
  for stage in ("bottlenecks", "evaluate"):
    assert stats(photos.output / stage)["quarantined"] == 0
  assert stats(photos.output / "bottlenecks")["inputs"] == 112
  assert (photos.output / "train" / "labels.txt").read_text() == "china\nflower\n"
  metrics = json.loads((photos.output / "evaluate" / "metrics.json").read_text())
  assert metrics["accuracy"] > 0.7


def test_the_bundled_trunk_for_photos_is_a_line_before_the_work(photos, tmp_path, monkeypatch, capsys):
  for name in ("https_proxy", "HTTPS_PROXY"):
    monkeypatch.setenv(name, "http://127.0.0.1:9")  # no network
  few = tmp_path / "few"
  for label in CLASSES:
    shutil.copytree(photos.data / label, few / label)
  command = ["bottlenecks", f"--input={few}", f"--output={tmp_path / 'out'}"]
  assert main([*command, "--on_leak=fail"]) == 0
  first = capsys.readouterr().err.splitlines()[0]
  assert "take Inception v3" in first
  assert f"beam-retrain bottlenecks --input={few}" in first
  assert "--trunk=" in first
  assert main(["run", f"--data={few}", f"--output={tmp_path / 'run'}", "-q"]) == 0
  assert capsys.readouterr().err == ""


def test_evaluate_and_label_image(photos, tmp_path, capsys):
  assert (
    main(["evaluate", "--model", str(photos.output), "--input", str(photos.data), f"--output={tmp_path / 'e'}"]) == 0
  )
  assert stats(tmp_path / "e")["inputs"] == 112
  flags = [f"--graph={photos.model}/retrained_graph.pb", f"--labels={photos.model}/retrained_labels.txt"]
  flags += [
    "--input_layer=Placeholder",
    "--output_layer=final_result",
    "--process_mode=2",
    f"--output={tmp_path / 'l'}",
  ]
  capsys.readouterr()
  assert main(["label_image", *flags, f"--directory_name={photos.data}"]) == 0
  assert "Total files tested: 112\n" in capsys.readouterr().out


def test_retrain(photos, tiny_trunk, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  flags = [f"--tfhub_module={tiny_trunk}", "--how_many_training_steps=50", "--bottleneck_dir=bottlenecks"]
  flags += ["--output_graph=graph.pb", "--output_labels=labels.txt", "--summaries_dir=logs", "--checkpoint_path=c/head"]
  assert main(["retrain", f"--image_dir={photos.data}", *flags]) == 0
  assert "Final test accuracy = " in capsys.readouterr().out
  assert (tmp_path / "labels.txt").read_text() == "china\nflower\n"
