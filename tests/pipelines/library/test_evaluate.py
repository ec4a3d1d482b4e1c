"""`Model.evaluate` gives the figures of `beam-retrain evaluate`, on folders, files, bytes, arrays and bottlenecks."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from beam_retrain import Evaluation, InputError, Model
from beam_retrain.pipelines import evaluate
from beam_retrain.transforms.core.metrics.metrics_file import metrics_from_json
from tests.helpers import read_json

_COUNT = 300


@pytest.fixture(scope="module")
def model(made) -> Model:
  return Model(made.model)


@pytest.fixture(scope="module")
def images(draw_digits, tmp_path_factory) -> Path:
  """Digits, of which the model was trained on some, two under a wrong label, and a broken file."""
  folder = tmp_path_factory.mktemp("evaluate") / "images"
  draw_digits(folder, _COUNT, lambda number, label: f"{label}/{number}.png")
  (folder / "ant" / "wrong.png").write_bytes((folder / "zebra" / "0.png").read_bytes())
  Pillow.new("L", (16, 16), 255).save(folder / "mule" / "white.png")
  (folder / "mule" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
  return folder


def _command(made, given: Path, output: Path) -> Path:
  flags = ["--max_bad_fraction=0.1"]
  assert evaluate.run([f"--model={made.model}", f"--input={given}", f"--output={output}", *flags]) == 0
  return output


@pytest.fixture(scope="module")
def by_command(made, images, tmp_path_factory) -> Path:
  return _command(made, images, tmp_path_factory.mktemp("evaluate") / "evaluation")


def _same_figures(found: Evaluation, output: Path) -> None:
  written = metrics_from_json(read_json(output / "metrics.json")).model
  of_a_job = {name: getattr(written, name) for name in ("suspicious", "quarantined", "trunk_kind", "gates")}
  assert dataclasses.replace(found.metrics, **of_a_job) == written
  main = written.main
  assert (found.total, found.correct, found.accuracy, found.interval) == (
    main.total,
    main.correct,
    main.accuracy,
    main.accuracy_interval,
  )
  with (output / "predictions.csv").open(newline="") as file:
    rows = {row["file_name"]: row for row in csv.DictReader(file)}
  good = {one.image: one for one in found.predictions if not one.fault}
  assert {name.removeprefix("'") for name in rows} == set(good)
  for name, row in rows.items():
    one = good[name.removeprefix("'")]
    labels = [row[column].removeprefix("'") for column in ("actual_digit", "predicted_digit", "second_digit")]
    assert labels == [one.actual, one.label, one.top[1][0]]
    assert [row["confidence"], row["second_confidence"]] == [f"{100 * score:.4f}" for _, score in one.top[:2]]


def test_a_folder_gives_the_figures_of_the_command(model, images, by_command):
  found = model.evaluate(images)
  _same_figures(found, by_command)
  assert 0 < found.metrics.trained_on < found.metrics.total == _COUNT + 2
  assert [(one.image, one.fault[:9]) for one in found.bad] == [("mule/broken.png", "TRUNCATED")]
  assert {"ant/wrong.png"} <= {one.image for one in found.mistakes}
  confidences = [one.confidence for one in found.mistakes]
  assert confidences == sorted(confidences, reverse=True)
  assert found.confusion.sum() == found.metrics.total
  assert found.confusion[1, -1] >= 1  # a zebra among the ants
  assert sum(row.support for row in found.per_label.values()) == found.metrics.total
  unseen = [row.unseen.total for row in found.per_label.values()]
  assert sum(unseen) == found.total
  assert sum(one.trained_on is False for one in found.predictions) == found.total
  assert {one.trained_on for one in found.bad} == {None}
  assert repr(found).startswith(f"<Evaluation: accuracy {found.accuracy:.2%} ({found.correct} of {found.total}; 95 %")


def test_a_list_gives_the_figures_of_the_folder(model, images, by_command):
  paths = sorted(path for path in images.rglob("*") if path.is_file())
  given = [path.read_bytes() if number % 2 else path for number, path in enumerate(paths)]
  found = model.evaluate(given, [f" {path.parent.name}" for path in paths])
  in_folder = model.evaluate(images)
  assert found.metrics == in_folder.metrics
  assert [one.image for one in found.predictions[:2]] == [str(paths[0]), "1"]
  assert [one.actual for one in found.bad] == ["mule"]


def test_of_pixels_nobody_knows_whether_they_were_trained_on(model, images):
  paths = [images / "zebra" / "0.png", images / "ant" / "1.png"]
  of_files = model.evaluate(paths, ["zebra", "ant"])
  of_pixels = model.evaluate([np.asarray(Pillow.open(path)) for path in paths], ["zebra", "ant"])
  assert of_files.metrics.trained_on is not None
  assert of_pixels.metrics.trained_on is None
  assert of_pixels.per_label["ant"].unseen is None
  assert of_pixels.confusion.tolist() == of_files.confusion.tolist()


def test_stored_bottlenecks_need_the_head_alone(made, model, tmp_path):
  found = model.evaluate(made.bottlenecks)
  _same_figures(found, _command(made, made.bottlenecks, tmp_path / "evaluation"))
  assert model.evaluate(made.bottlenecks, split="all").metrics.total == 1797
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "bottlenecks").symlink_to(made.bottlenecks)
  assert model.evaluate(tmp_path / "run").metrics == found.metrics


@pytest.mark.parametrize(
  ("given", "labels", "words"),
  [
    (["a.png"], None, "images in a list have no labels: give `labels`, one for each"),
    (["a.png", "b.png"], ["ant"], "2 images have 1 labels"),
    (["a.png"], ["cat"], r"image 0 has the label 'cat', which is none of the model's 10: =cmd, ant, "),
    ("folder", ["ant"], "a folder has its own labels"),
    (b"bytes", ["ant"], "give a list of images"),
    ("nothing", None, "nothing does not exist"),
  ],
)
def test_what_cannot_be_evaluated_is_one_sentence(model, given, labels, words):
  with pytest.raises(InputError, match=words):
    model.evaluate(given, labels)


def test_no_other_split(model, images):
  with pytest.raises(InputError, match="'validation' is no split: give auto, testing or all"):
    model.evaluate(images, split="validation")


def test_without_images_there_is_no_accuracy(model):
  found = model.evaluate([], [])
  assert (found.accuracy, found.interval, found.total) == (None, (0.0, 1.0), 0)
  assert repr(found) == "<Evaluation: no images>"
