"""`EvaluateClassifier` alone, in a pipeline of somebody else's, with a scorer of theirs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from beam_retrain.pipelines.jobs.thread_runner import ThreadRunner
from beam_retrain.transforms.core.errors import user_sentence
from beam_retrain.transforms.core.metrics.predictions import Scored
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.shards import Shard
from beam_retrain.transforms.evaluation.classifier import EvaluateClassifier
from beam_retrain.transforms.evaluation.evaluate import JobFigures
from beam_retrain.transforms.evaluation.scoring import Scorer
from beam_retrain.transforms.sources.find import find_source

LABELS = ("white", "black")


class ScoreBrightness(Scorer):
  """The brighter, the whiter."""

  def setup(self) -> None:
    pass

  def score(self, shard: Shard) -> Iterator[tuple[Scored, ...] | Quarantined]:
    for image in shard.read_images(LABELS):
      if isinstance(image, Quarantined):
        yield image
        continue
      white = float(np.asarray(Image.open(io.BytesIO(image.encoded)).convert("L")).mean() / 255)
      scores = np.array([white, 1 - white], np.float32)
      yield (Scored(image.key, image.label, image.sha256, scores, np.array([1, white, white**2], np.float32)),)


def _images(folder: Path) -> Path:
  for label, grey, count in (("black", 10, 3), ("white", 240, 4)):
    (folder / label).mkdir(parents=True)
    for number in range(count):
      Image.new("L", (8, 8), grey + number).save(folder / label / f"{number}.png")
  Image.new("L", (8, 8), 250).save(folder / "black" / "wrong.png")
  return folder


def _evaluate(images: Path, output: Path, splits: tuple[str, ...] = ("all",)) -> None:
  evaluation = EvaluateClassifier(
    scorer=ScoreBrightness(), models={"model": LABELS}, output=str(output), request="brightness"
  )
  with beam.Pipeline(ThreadRunner()) as pipeline:
    _ = pipeline | find_source(str(images)).plan(splits, None) | evaluation


def test_everything_is_written(tmp_path: Path) -> None:
  output = tmp_path / "evaluation"
  _evaluate(_images(tmp_path / "images"), output)
  with (output / "predictions.csv").open(newline="") as file:
    wrong = [row["file_name"] for row in csv.DictReader(file) if row["prediction_accuracy"] == "False"]
  assert wrong == ["black/wrong.png"]
  names = {path.name for path in output.iterdir() if not path.name.startswith(".")}
  assert names == {
    "confusion_matrix.csv",
    "per_label.csv",
    "predictions.csv",
    "quarantine.csv",
    "stats.json",
    "suspicious_labels.csv",
  }
  assert json.loads((output / "stats.json").read_text())["outputs"] == 8
  figures = JobFigures.from_json((output / ".parts" / "figures.json").read_bytes())
  model = figures.models["model"]
  assert (model.total, model.correct, model.labels) == (8, 7, list(LABELS))
  assert model.confusion == ((4, 0), (1, 3))
  (mistake,) = figures.images["mistakes"]
  assert (mistake.key, mistake.actual, mistake.predicted) == ("black/wrong.png", "black", "white")
  assert (mistake.thumbnail or "").startswith("data:image/png;base64,")
  right = {image.key for image in figures.images["right"]}
  assert right == {*(f"white/{number}.png" for number in range(4)), *(f"black/{number}.png" for number in range(3))}
  assert {point.key for point in figures.map.points} == {*right, "black/wrong.png"}


def test_no_image_at_all_fails_the_job(tmp_path: Path) -> None:
  pipeline = beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner"]))
  shards = pipeline | beam.Create([]).with_output_types(Shard)
  _ = shards | EvaluateClassifier(
    scorer=ScoreBrightness(), models={"model": LABELS}, output=str(tmp_path), request="brightness"
  )
  with pytest.raises(Exception, match="no images") as raised:
    pipeline.run()
  assert user_sentence(raised.value) == "there are no images to evaluate: give another input."


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"models": {}}, "the first model must be called 'model', not None"),
    ({"models": {"candidate": LABELS}}, "must be called 'model', not 'candidate'"),
    ({"models": {"model": ()}}, "the label list of 'model' is empty"),
    ({"models": {"model": ("a", "a")}}, "repeats a label"),
    ({"output": ""}, "the output folder is empty"),
  ],
)
def test_what_does_not_belong_together_fails_at_construction(change: dict, words: str) -> None:
  arguments = {"scorer": ScoreBrightness(), "models": {"model": LABELS}, "output": "out", "request": "1"}
  with pytest.raises(ValueError, match=words):
    EvaluateClassifier(**{**arguments, **change})
