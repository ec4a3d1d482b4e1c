"""What programs import: it gives what the commands give, for paths, bytes and arrays."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import beam_retrain
from beam_retrain import (
  ComputeBottlenecks,
  ImageModelHandler,
  InputError,
  Model,
  ReadImages,
  embed,
  find_source,
  load_bottlenecks,
  load_trunk,
)
from beam_retrain.pipelines import predict
from beam_retrain.pipelines.library.images import as_list
from beam_retrain.pipelines.predict import PredictRequest
from beam_retrain.trainer.fit.data import load_bottlenecks as load_for_training
from beam_retrain.transforms.core.records.splits import SplitPercentages
from tests.helpers import file_contents, python


@pytest.fixture(scope="module")
def model(made) -> Model:
  return Model(made.model)


@pytest.fixture(scope="module")
def paths(made) -> list[str]:
  return [str(made.data / label / name) for label, name in [("zebra", "0.png"), ("ant", "1.png"), ("mule", "3.png")]]


def test_a_prediction_is_that_of_the_command(made, model, paths):
  request = PredictRequest(model=str(made.model), images=tuple(paths), top=3)
  assert [(one.image, one.top) for one in model.predict(paths, top=3)] == list(
    predict.predict(predict.plan(request), [], [])
  )
  assert [one.label for one in model.predict(paths)] == ["zebra", "ant", "mule"]
  assert {(one.label, one.confidence) == one.top[0] and not one.fault for one in model.predict(paths)} == {True}


def test_bytes_and_pixels_are_images_too(model, paths):
  pixels = np.asarray(Pillow.open(paths[0]))
  encoded = Path(paths[0]).read_bytes()
  of_path, of_bytes, of_pixels = model.predict([paths[0], encoded, pixels])
  assert of_path[1:] == of_bytes[1:] == of_pixels[1:]
  assert [of_path.image, of_bytes.image, of_pixels.image] == [paths[0], "1", "2"]
  coloured = model.predict([np.stack([pixels] * 3, -1)])
  assert coloured[0].label == of_path.label


def test_what_a_notebook_has_are_images_too(model, paths, tmp_path):
  encoded = Path(paths[0]).read_bytes()
  opened = Pillow.open(paths[0])
  (tmp_path / "cut.png").write_bytes(encoded[:-40])
  kinds = [opened, opened.convert("P"), opened.convert("RGBA"), bytearray(encoded), memoryview(encoded)]
  *found, cut = model.predict([*kinds, Pillow.open(tmp_path / "cut.png")])
  assert {one.label for one in found} == {"zebra"}
  assert found[0].confidence == model.predict(paths[:1])[0].confidence
  assert cut.fault.startswith("UNREADABLE: ")
  several = np.stack([np.asarray(Pillow.open(path).convert("L").resize((28, 28))) for path in paths])
  assert [one.label for one in model.predict(several)] == ["zebra", "ant", "mule"]
  assert model.embed(several[:0]).shape == (0, model.dimensions)


def test_a_used_model_can_be_pickled(model, paths):
  expected = model.predict(paths)
  kept = pickle.dumps(model)
  assert len(kept) < 5000
  assert pickle.loads(kept).predict(paths) == expected


_IN_A_FORK = """
import multiprocessing, sys
from beam_retrain import InputError, Model

def label(path):
  try:
    return Model(sys.argv[1]).predict([path])[0].label
  except InputError as error:
    return str(error)

Model(sys.argv[1]).predict(sys.argv[2:])
print(multiprocessing.get_context("fork").Pool(1).map(label, sys.argv[2:3]))
"""


def test_a_process_forked_after_a_prediction_does_not_hang(made, paths):
  found = python("-c", _IN_A_FORK, str(made.model), paths[0], timeout=120)
  assert "a model was used before this process was forked" in found.stdout


@pytest.mark.parametrize(
  "one",
  [
    "a.png",
    b"bytes",
    bytearray(b"bytes"),
    np.zeros((8, 8), np.uint8),
    np.zeros((8, 8, 3), np.uint8),
    Pillow.new("L", (8, 8)),
    io.BytesIO(b"lines\nof a file\n"),
    None,
  ],
)
def test_a_single_image_is_not_taken_for_several(model, one):
  with pytest.raises(InputError, match="give a list of images"):
    model.predict(one)


@pytest.mark.parametrize("dtype", [str, object])
def test_paths_in_an_array_are_images(dtype):
  assert as_list(np.array(["a.png", "b.png"], dtype)) == ["a.png", "b.png"]


@pytest.mark.parametrize("pixels", [np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8), np.uint8)])
def test_other_arrays_are_refused(model, pixels):
  with pytest.raises(InputError, match=r"give uint8 \[H, W\] or \[H, W, 3\]"):
    model.predict([pixels])


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda model: model.predict([None]), "image 0 is of type NoneType: give a path, bytes"),
    (lambda model: model.predict(["a.png", [1, 2]]), "image 1 is of type list"),
    (lambda model: model.predict([Pillow.new("I;16", (8, 8))]), "image 0 is of PIL's mode I;16"),
    *((lambda model, top=top: model.predict([], top=top), f"top is {top!r}: give a whole") for top in (0, -1, "3")),
    (lambda model: model.evaluate(["a.png"], [1]), "image 0 has the label 1, which is none of the model's 10"),
    (lambda model: model.evaluate(["a.png"], [None]), "image 0 has the label None"),
    (lambda model: embed([], precision="float16"), "precision is 'float16': give 'float32' or 'bfloat16'"),
    (lambda model: embed([], runtime="torch"), "runtime is 'torch': give"),
    (lambda model: embed([], trunk="nope"), "^trunk nope is neither a folder"),
    (
      lambda model: embed([], weights="nope.h5"),
      "^weights is for a trunk of Keras, not for bundled: give trunk keras:",
    ),
    (lambda model: load_trunk("nope"), "^handle nope is neither a folder"),
    (lambda model: load_trunk("bundled", input_px=9), "leave out input_px.$"),
    (lambda model: load_bottlenecks(3), "folder is of type int: give a str or a pathlib.Path"),
    (lambda model: Model(None), "folder is None: give"),
    (lambda model: Model("nope"), "^nope does not exist: give the folder that `beam-retrain train` wrote"),
    (lambda model: ReadImages("nope", testing_percentage=200), "testing_percentage is 200: give a number"),
    (lambda model: ReadImages("nope", testing_percentage="many"), "testing_percentage is 'many'"),
    (lambda model: ComputeBottlenecks("a", output="b", testing_percent=3), "the nearest is testing_percentage"),
    (lambda model: ComputeBottlenecks("a", output="b", testing_percentage="many"), "testing_percentage: invalid"),
    (lambda model: ComputeBottlenecks("a", output=None), "^output is None: give"),
  ],
)
def test_a_wrong_argument_is_one_sentence(model, call, words):
  with pytest.raises(InputError, match=words) as raised:
    call(model)
  assert "--" not in str(raised.value).partition("`")[0]
  assert not [entry for entry in raised.traceback if "thread" in str(entry.path)]


def test_paths_may_be_of_pathlib(made, paths):
  trunk = made.bottlenecks / "trunk"
  assert embed(paths[:1], trunk).shape == (1, 64)
  assert find_source(made.data).labels == find_source(str(made.data)).labels
  assert ReadImages(made.data, "testing")
  assert ImageModelHandler(trunk).load_model().input_px == 16
  assert load_trunk(trunk).info.dimensions == 64


def test_stored_bottlenecks_are_those_that_train_reads(made, model):
  vectors, labels, keys = load_bottlenecks(made.bottlenecks)
  percentages = SplitPercentages(testing=30)
  read = load_for_training(
    str(made.bottlenecks), labels=model.labels, dimensions=64, percentages=percentages, transform=lambda batch: batch
  )
  np.testing.assert_array_equal(vectors, read.vectors)
  assert labels.tolist() == [model.labels[index] for index in read.classes]
  for split, rows in read.rows.items():
    part = load_bottlenecks(made.bottlenecks, split)
    assert len(rows) == len(part.keys) > 0
    np.testing.assert_array_equal(part.vectors, vectors[rows])
    assert part.keys.tolist() == keys[rows].tolist()


def test_embedding_gives_the_stored_bottlenecks(made, model):
  stored = load_bottlenecks(made.bottlenecks, "testing")
  images = [made.data / key for key in stored.keys[:5]]
  np.testing.assert_allclose(model.embed(images), stored.vectors[:5], atol=1e-2)
  trunk = str(made.bottlenecks / "trunk")
  np.testing.assert_allclose(embed(images, trunk), stored.vectors[:5], atol=1e-2)
  assert embed(images, trunk).dtype == np.float32


def test_as_a_table_and_as_a_dataset(made):
  stored = load_bottlenecks(made.bottlenecks, "testing")
  table = stored.to_pandas()
  assert list(table.columns[:3]) == ["key", "label", "0"]
  assert len({type(name) for name in table.columns}) == 1  # as sklearn and Parquet want them
  np.testing.assert_array_equal(table.drop(columns=["key", "label"]).to_numpy(), stored.vectors)
  vector, label = next(iter(stored.to_tf_dataset()))
  np.testing.assert_array_equal(vector.numpy(), stored.vectors[0])
  assert label.numpy().decode() == stored.labels[0] == table["label"][0]
  renamed = stored._replace(labels=np.full_like(stored.labels, "ü"))
  assert next(iter(renamed.to_tf_dataset()))[1].numpy().decode() == "ü"


def test_a_dataset_in_a_new_process_prints_nothing_of_tensorflow(made):
  script = f"import beam_retrain; beam_retrain.load_bottlenecks({str(made.bottlenecks)!r}, 'testing').to_tf_dataset()"
  as_of_a_user = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
  assert python("-c", script, env=as_of_a_user).stderr == ""


def test_what_is_not_there_is_one_sentence(made, tmp_path):
  with pytest.raises(InputError, match="'train' is no split: give training, validation or testing"):
    load_bottlenecks(made.bottlenecks, "train")
  with pytest.raises(InputError, match="give the folder that `beam-retrain bottlenecks` wrote"):
    load_bottlenecks(made.model)
  with pytest.raises(InputError, match=r"nothing"):
    Model(tmp_path / "nothing")


def test_nothing_is_written(made, model, paths):
  before = file_contents(made.model)
  model.predict(paths)
  model.embed(paths)
  assert file_contents(made.model) == before


def test_each_public_name_is_there_and_described():
  for name in beam_retrain.__all__:
    assert getattr(beam_retrain, name).__doc__, name
  assert {name for name in dir(beam_retrain) if name[0] != "_"} == set(beam_retrain.__all__)


@pytest.mark.parametrize("given", ["run", "run/train", "run/train/saved_model", "run/train/saved_model/"])
def test_a_model_is_found_from_each_folder_that_is_printed(made, paths, tmp_path, monkeypatch, capsys, given):
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "train").symlink_to(made.model)
  (tmp_path / "run" / "bottlenecks").symlink_to(made.bottlenecks)
  monkeypatch.chdir(tmp_path)
  assert Model(given).labels == Model(made.model).labels
  assert predict.run([f"--model={given}", paths[0]]) == 0
  assert "zebra" in capsys.readouterr().out
  assert len(load_bottlenecks("run", "testing").keys) > 0


def test_a_folder_of_another_stage_is_named_as_it_was_given(made, tmp_path):
  (tmp_path / "saved_model").mkdir()
  for path in (made.bottlenecks, tmp_path / "saved_model"):
    with pytest.raises(InputError, match=f"^{path}.*give the folder that `beam-retrain train` wrote"):
      Model(path)
