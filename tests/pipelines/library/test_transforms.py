"""The steps for pipelines of one's own: they give what the commands give, and bad images apart."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from beam_retrain import (
  ComputeBottlenecks,
  EvaluateClassifier,
  ImageModelHandler,
  InputError,
  Model,
  ReadImages,
  SeparateBad,
  load_bottlenecks,
)
from beam_retrain.pipelines import bottlenecks
from beam_retrain.transforms.core.records.schema import Image
from beam_retrain.transforms.core.runtimes import variant
from tests.helpers import file_contents

_COUNT = 300
_OPTIONS = {"testing_percentage": 30.0, "validation_percentage": 20.0, "max_bad_fraction": 0.1}


def _pipeline() -> beam.Pipeline:
  return beam.Pipeline(options=PipelineOptions(flags=["--runner=FnApiRunner"]))


def _keep(elements: beam.PCollection, path: Path) -> None:
  """Keeps the elements in a file."""
  name = path.stem
  collected = elements | f"Collect{name}" >> beam.combiners.ToList()
  _ = collected | f"Keep{name}" >> beam.Map(lambda found: path.write_bytes(pickle.dumps(found)))


def _kept(path: Path) -> list:
  return pickle.loads(path.read_bytes())


@pytest.fixture(scope="module")
def images(draw_digits, tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp("transforms") / "images"
  draw_digits(folder, _COUNT, lambda number, label: f"{label}/{number}.png")
  (folder / "mule" / "=broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
  return folder


@pytest.fixture(scope="module")
def results(made, images, tmp_path_factory) -> Path:
  """All steps in one pipeline."""
  out = tmp_path_factory.mktemp("transforms")
  compute = ComputeBottlenecks(images, output=out / "bottlenecks", trunk=str(made.data.parent / "trunk"), **_OPTIONS)
  evaluate = EvaluateClassifier(made.model, images, output=out / "evaluation")
  with _pipeline() as pipeline:
    stats, bad_of_bottlenecks = pipeline | "Compute" >> compute
    metrics, bad_of_evaluation = pipeline | "Evaluate" >> evaluate
    read, unread = pipeline | "Read" >> ReadImages(str(images))
    scored, unscored = read | RunInference(Model(made.model).handler()) | SeparateBad()
    for name, elements in {
      "stats": stats,
      "bad_of_bottlenecks": bad_of_bottlenecks,
      "metrics": metrics,
      "bad_of_evaluation": bad_of_evaluation,
      "unread": unread,
      "scored": scored,
      "unscored": unscored,
    }.items():
      _keep(elements, out / f"{name}.pickle")
  return out


def test_stored_bottlenecks_are_those_of_the_command(made, images, results, tmp_path):
  options = [f"--{name}={value}" for name, value in _OPTIONS.items()]
  flags = [f"--trunk={made.data.parent / 'trunk'}", *options]
  assert bottlenecks.run([f"--input={images}", f"--output={tmp_path / 'command'}", *flags]) == 0
  ours, theirs = file_contents(results / "bottlenecks"), file_contents(tmp_path / "command")
  assert ours.keys() == theirs.keys()
  same = [name for name in ours if name.endswith((".tfrecord", "stats.json", "labels.txt", "schema.pbtxt"))]
  assert [name for name in same if ours[name] != theirs[name]] == []
  (stats,) = _kept(results / "stats.pickle")
  assert (stats.inputs, stats.outputs) == (_COUNT + 1, _COUNT)
  assert len(load_bottlenecks(results / "bottlenecks").keys) == _COUNT


def test_too_many_bad_images_end_the_pipeline(made, images, tmp_path):
  options = {"trunk": made.data.parent / "trunk", "testing_percentage": 30}
  compute = ComputeBottlenecks(images, output=tmp_path / "bottlenecks", **options)
  pipeline = _pipeline()
  _ = pipeline | compute
  with pytest.raises(Exception, match=r"1 of 301 inputs is bad \(1 TRUNCATED\).*the loss with max_bad_fraction=0\.00"):
    pipeline.run()
  with pytest.raises(InputError, match="is not finished: 1 of 301 inputs is bad"):
    load_bottlenecks(tmp_path / "bottlenecks")


def test_figures_are_those_of_the_model(made, images, results):
  (metrics,) = _kept(results / "metrics.pickle")
  found = Model(made.model).evaluate(images).metrics
  assert (metrics.confusion, metrics.main, metrics.log_loss) == (found.confusion, found.main, found.log_loss)
  assert (results / "evaluation" / "predictions.csv").exists()


@pytest.mark.parametrize("name", ["bad_of_bottlenecks", "bad_of_evaluation", "unscored"])
def test_bad_images_come_apart(results, name):
  (bad,) = _kept(results / f"{name}.pickle")
  assert (bad.key, bad.reason, bad.size_bytes) == ("mule/=broken.png", "TRUNCATED", 8)


def test_read_images_are_labelled_and_inferred(made, images, results):
  assert _kept(results / "unread.pickle") == []
  scored = _kept(results / "scored.pickle")
  assert len(scored) == _COUNT
  labels = Model(made.model).labels
  of_model = {one.image: one for one in Model(made.model).predict([images / one.image.key for one in scored])}
  for one in scored:
    assert one.image.label == one.image.key.split("/")[0]
    assert labels[int(one.outputs["scores"].argmax())] == of_model[str(images / one.image.key)].label


def test_a_split_is_read_and_what_cannot_be_opened_is_bad(images, tmp_path):
  shutil.copytree(images, tmp_path / "images")
  (tmp_path / "images" / "ant" / "link.png").symlink_to(tmp_path / "nowhere.png")
  with _pipeline() as pipeline:
    for split in ("training", "testing"):
      read, unread = pipeline | split >> ReadImages(str(tmp_path / "images"), split, testing_percentage=30)
      _keep(read, tmp_path / f"{split}.pickle")
      _keep(unread, tmp_path / f"bad_{split}.pickle")
  keys = {split: {image.key for image in _kept(tmp_path / f"{split}.pickle")} for split in ("training", "testing")}
  assert not keys["training"] & keys["testing"]
  assert len(keys["training"] | keys["testing"]) == _COUNT + 1
  assert 60 < len(keys["testing"]) < 120
  bad = [*_kept(tmp_path / "bad_training.pickle"), *_kept(tmp_path / "bad_testing.pickle")]
  assert [(one.key, one.reason) for one in bad] == [("ant/link.png", "UNREADABLE")]
  with pytest.raises(InputError, match="'validation' is no split here: give training or testing"):
    ReadImages(str(images), "validation")


def _on_another_machine(folder: Path) -> None:
  """Records another processor as the one that prepared the trunk."""
  card = folder / "prepared" / "card.json"
  values = json.loads(card.read_text())
  assert values["machine"]
  card.write_text(json.dumps({**values, "machine": "riscv64"}))


def test_a_trunk_of_another_machine_runs_as_a_saved_model(made, images, tmp_path, capfd):
  shutil.copytree(made.bottlenecks / "trunk", tmp_path / "trunk")
  _on_another_machine(tmp_path / "trunk")
  keys = ["zebra/0.png", "ant/1.png", "mule/=broken.png"]
  with _pipeline() as pipeline:
    given = pipeline | beam.Create([Image(key, "", (images / key).read_bytes()) for key in keys])
    results, bad = given | RunInference(ImageModelHandler(str(tmp_path / "trunk"))) | SeparateBad()
    _keep(results, tmp_path / "results.pickle")
    _keep(bad, tmp_path / "bad.pickle")
  assert "it was prepared on riscv64, and this is" in capfd.readouterr().err
  assert [one.key for one in _kept(tmp_path / "bad.pickle")] == ["mule/=broken.png"]
  found = {one.image.key: one.outputs["bottleneck"] for one in _kept(tmp_path / "results.pickle")}
  expected = Model(made.model).embed([images / key for key in keys[:2]])
  np.testing.assert_allclose(np.stack([found[key] for key in keys[:2]]), expected, atol=2e-2)


def test_a_model_of_another_machine_runs_as_it_was_exported(made, images, tmp_path):
  shutil.copytree(made.model, tmp_path / "model")
  model = Model(tmp_path / "model")
  handler = model.handler()
  image = Image("0", "", (images / "zebra" / "0.png").read_bytes())
  (own,) = handler.run_inference([image], handler.load_model())
  _on_another_machine(tmp_path / "model" / "trunk")
  (found,) = handler.run_inference([image], handler.load_model())
  np.testing.assert_allclose(found.outputs["scores"], own.outputs["scores"], atol=2e-2)
  trunk = ImageModelHandler(str(tmp_path / "model" / "trunk"))
  (vector,) = trunk.run_inference([image], trunk.load_model())
  assert vector.outputs["bottleneck"].shape == (64,)


def test_a_job_with_one_kind_of_bits_refuses_such_a_machine(made, monkeypatch, tmp_path):
  shutil.copytree(made.bottlenecks / "trunk", tmp_path / "trunk")
  card = tmp_path / "trunk" / "prepared" / "card.json"
  card.write_text(json.dumps({**json.loads(card.read_text()), "precision": "bfloat16"}))
  monkeypatch.setattr(variant, "has_bfloat16", lambda: False)
  with pytest.raises(InputError, match="this processor has no bfloat16"):
    ImageModelHandler(str(tmp_path / "trunk"), exact=True).load_model()
  assert ImageModelHandler(str(tmp_path / "trunk")).load_model().input_px == 16


def test_wrong_options_fail_where_they_are_given(made, images, tmp_path):
  with pytest.raises(InputError, match="overlaps with path"):
    ComputeBottlenecks(images, output=images / "out")
  with pytest.raises(InputError, match="nowhere does not exist"):
    EvaluateClassifier(made.model, tmp_path / "nowhere", output=tmp_path / "out")
