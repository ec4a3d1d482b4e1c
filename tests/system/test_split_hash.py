"""`--split_hash legacy` through the stages: what retrain.py would have tested is what is tested, and nothing else."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from beam_retrain.pipelines import bottlenecks, evaluate
from beam_retrain.pipelines.models.trained import Model, choose_splits, shared_percentages
from beam_retrain.pipelines.reevaluate import command as reevaluate
from beam_retrain.trainer import task
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.records.schema import decode_bottleneck
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.records.tfrecord import read_records
from beam_retrain.transforms.sources.find import find_source

_TYPED = "./data/"
_TESTING, _VALIDATION = 20, 15


class LegacyRun(NamedTuple):
  folder: Path
  bottlenecks: Path
  model: Path


def _split(path: str) -> str:
  """retrain.py's rule, written down once more; there are no `_nohash_` names here."""
  percentage = int(hashlib.sha1(path.encode()).hexdigest(), 16) % 2**27 * (100.0 / (2**27 - 1))
  if percentage < _VALIDATION:
    return "validation"
  return "testing" if percentage < _TESTING + _VALIDATION else "training"


def _keys_by_split(data: Path) -> dict[str, set[str]]:
  keys: dict[str, set[str]] = {"training": set(), "validation": set(), "testing": set()}
  for path in data.rglob("*.png"):
    key = path.relative_to(data).as_posix()
    keys[_split(f"{_TYPED}{key}")].add(key)
  return keys


@pytest.fixture(scope="module")
def legacy(tmp_path_factory: pytest.TempPathFactory, draw_digits: Callable, made: Any) -> LegacyRun:
  folder = tmp_path_factory.mktemp("legacy")
  draw_digits(folder / "data", 500, lambda number, label: f"{label}/{number}.png")
  run = LegacyRun(folder, folder / "bottlenecks", folder / "model")
  flags = [f"--trunk={made.data.parent / 'trunk'}", f"--output={run.bottlenecks}"]
  percentages = [f"--testing_percentage={_TESTING}", f"--validation_percentage={_VALIDATION}"]
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    assert bottlenecks.run([f"--input={_TYPED}", "--split_hash=legacy", *percentages, *flags]) == 0
  assert task.run([f"--input={run.bottlenecks}", f"--output={run.model}", "--rounds=5"]) == 0
  return run


def _read_keys(folder: Path, split: str) -> set[str]:
  keys = set()
  for path in (folder / "records").glob(f"{split}-*.tfrecord"):
    with path.open("rb") as file:
      keys |= {decode_bottleneck(record).key for record in read_records(file, path.name)}
  return keys


def test_records_lie_where_retrain_py_would_have_put_the_images(legacy: LegacyRun) -> None:
  expected = _keys_by_split(legacy.folder / "data")
  assert min(map(len, expected.values())) > 50
  assert _read_keys(legacy.bottlenecks, "testing") == expected["testing"]
  assert _read_keys(legacy.bottlenecks, "training") == expected["training"] | expected["validation"]


def test_train_draws_the_same_validation_images(legacy: LegacyRun) -> None:
  expected = _keys_by_split(legacy.folder / "data")
  metrics = json.loads((legacy.model / "metrics.json").read_text())
  assert {split: metrics[f"{split}_images"] for split in expected} == {
    split: len(keys) for split, keys in expected.items()
  }


def test_evaluate_tests_on_the_same_images_wherever_the_folder_is_called_from(
  legacy: LegacyRun, tmp_path: Path
) -> None:
  flags = [f"--model={legacy.model}", f"--input={legacy.folder / 'data'}", "--split=testing"]
  assert evaluate.run([*flags, f"--output={tmp_path / 'evaluation'}"]) == 0
  with (tmp_path / "evaluation" / "predictions.csv").open(newline="") as file:
    tested = {row["file_name"].removeprefix("'") for row in csv.DictReader(file)}
  assert tested == _keys_by_split(legacy.folder / "data")["testing"]


def test_the_folders_say_how_they_were_split(legacy: LegacyRun) -> None:
  expected = {
    "testing_percentage": _TESTING,
    "validation_percentage": _VALIDATION,
    "split_hash": "legacy",
    "split_root": _TYPED,
  }
  for folder in (legacy.bottlenecks, legacy.model):
    settings = json.loads((folder / "info.json").read_text())["settings"]
    assert {name: settings[name] for name in expected} == expected


def test_train_refuses_another_validation_percentage(legacy: LegacyRun, tmp_path: Path) -> None:
  arguments = [f"--input={legacy.bottlenecks}", f"--output={tmp_path / 'model'}", "--rounds=1"]
  with pytest.raises(InputError, match=r"--validation_percentage 20: with --split_hash legacy .* \(it was 15 there\)"):
    task.run([*arguments, "--validation_percentage=20"])
  assert task.run([*arguments, f"--validation_percentage={_VALIDATION}"]) == 0


def test_a_source_with_splits_of_its_own_is_refused(tmp_path: Path, draw_digits: Callable, made: Any) -> None:
  draw_digits(
    tmp_path / "data", 60, lambda number, label: f"{'testing' if number < 30 else 'training'}/{label}/{number}.png"
  )
  arguments = [f"--input={tmp_path / 'data'}", f"--output={tmp_path / 'out'}", "--split_hash=legacy"]
  sentence = "but .* has splits of its own: leave out --split_hash legacy[.]$"
  with pytest.raises(InputError, match=sentence):
    bottlenecks.run([*arguments, f"--trunk={made.data.parent / 'trunk'}"])
  assert not (tmp_path / "out").exists()


def test_images_of_class_folders_are_split_as_the_model_s(made: Any) -> None:
  source = find_source(str(made.data))
  legacy = SplitPercentages(legacy_root="data")
  assert choose_splits(source, "testing", legacy) == (("testing",), legacy)
  assert choose_splits(source, "all", legacy) == (("all",), None)


def test_two_models_are_tested_on_one_split(legacy: LegacyRun, made: Any, tmp_path: Path) -> None:
  ours, theirs = Model(str(made.model)), Model(str(legacy.model))
  assert shared_percentages([ours, ours]) == ours.percentages
  assert shared_percentages([theirs, theirs]) == SplitPercentages(_TESTING, _VALIDATION, _TYPED)
  with pytest.raises(InputError, match="were trained on different splits"):
    shared_percentages([ours, theirs])
  arguments = [f"--model={made.model}", f"--candidate={legacy.model}", f"--input={made.data}", "--split=testing"]
  with pytest.raises(InputError, match="were trained on different splits"):
    reevaluate.run([*arguments, f"--history={tmp_path / 'nights'}"])


def test_of_models_with_our_own_hash_the_smallest_testing_split_is_shared(made: Any) -> None:
  small, large = Model(str(made.model)), Model(str(made.model))
  small.info = dataclasses.replace(small.info, settings={"testing_percentage": 5, "validation_percentage": 30})
  assert shared_percentages([large, small]).testing == 5


def test_a_manifest_without_splits_is_refused(made: Any, tmp_path: Path) -> None:
  rows = [f"{path},{path.parent.name}" for path in sorted(made.data.rglob("*.png"))[::20]]
  manifest = tmp_path / "images.csv"
  manifest.write_text("\n".join(["file_name,label", *rows, ""]))
  sentence = "but .*images.csv is not a folder of class folders: "
  with pytest.raises(InputError, match=f"{sentence}use --split all"):
    choose_splits(find_source(str(manifest)), "testing", SplitPercentages(legacy_root="data"))
  arguments = [f"--input={manifest}", f"--output={tmp_path / 'out'}", "--split_hash=legacy"]
  with pytest.raises(InputError, match=f"{sentence}leave out --split_hash legacy"):
    bottlenecks.run([*arguments, f"--trunk={made.data.parent / 'trunk'}"])
