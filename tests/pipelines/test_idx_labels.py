"""Commands on EMNIST-like files: labels that do not begin at 0, one missing, with names, transposed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beam_retrain.pipelines import bottlenecks, convert, evaluate
from beam_retrain.pipelines.run import run
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.idx import encode_idx
from tests.conftest import DigitsRun
from tests.helpers import read_csv, read_json

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "eight", "nine")
SHIFTED = [digit + 1 for digit in range(10) if digit != 7]


@pytest.fixture(scope="module")
def emnist(tmp_path_factory) -> Path:
  """Digits without a 7, numbered from 1, as EMNIST stores and names them, and a file of their names."""
  from sklearn.datasets import load_digits

  digits = load_digits()
  kept = np.flatnonzero(digits.target != 7)[:900]
  upright = np.repeat(np.repeat((digits.images[kept] * 15).astype(np.uint8), 2, 1), 2, 2)
  folder = tmp_path_factory.mktemp("emnist")
  for split, part in (("train", slice(0, 600)), ("test", slice(600, None))):
    (folder / f"emnist-digits-{split}-images-idx3-ubyte").write_bytes(encode_idx(upright[part].swapaxes(1, 2).copy()))
    labels = (digits.target[kept[part]] + 1).astype(np.uint8)
    (folder / f"emnist-digits-{split}-labels-idx1-ubyte").write_bytes(encode_idx(labels))
  lines = [f"{number} {name}\n" for number, name in zip(SHIFTED, NAMES, strict=True)]
  (folder / "names.txt").write_text("".join(lines))
  (folder / "upright.npy").write_bytes(upright.tobytes())
  return folder


@pytest.fixture(scope="module")
def finished(emnist: Path, made: DigitsRun, tmp_path_factory) -> Path:
  output = tmp_path_factory.mktemp("named") / "output"
  flags = [f"--class_names={emnist / 'names.txt'}", "--transpose", f"--trunk={made.data.parent / 'trunk'}"]
  assert run([f"--data={emnist}", f"--output={output}", *flags]) == 0
  return output


def test_run_shows_upright_digits_by_their_names(finished, emnist):
  assert read_json(finished / "evaluate" / "metrics.json")["accuracy"] > 0.85
  assert sorted((finished / "train" / "labels.txt").read_text().split()) == sorted(NAMES)
  assert sorted(path.name for path in (finished / "convert" / "training").iterdir()) == sorted(NAMES)
  (first,) = (finished / "convert" / "training").glob("*/0.jpg")
  pixels = np.asarray(Image.open(first)).astype(int)
  upright = np.frombuffer((emnist / "upright.npy").read_bytes(), np.uint8)[: 16 * 16].reshape(16, 16)
  assert np.abs(pixels - upright).mean() < 8 < np.abs(pixels - upright.T).mean()


def test_run_keeps_what_is_finished_until_the_names_change(finished, emnist, made, tmp_path, capsys):
  names = Path(shutil.copy(emnist / "names.txt", tmp_path / "names.txt"))
  output = Path(shutil.copytree(finished, tmp_path / "output"))
  flags = [f"--class_names={names}", "--transpose", f"--trunk={made.data.parent / 'trunk'}"]
  assert run([f"--data={emnist}", f"--output={output}", *flags]) == 0
  assert run([f"--data={emnist}", f"--output={output}", *flags]) == 0
  assert "convert: finished and unchanged, kept" in capsys.readouterr().out
  names.write_text(names.read_text().replace("eight", "huit"))
  assert run([f"--data={emnist}", f"--output={output}", *flags]) == 0
  assert "huit" in (output / "train" / "labels.txt").read_text().split()


def test_the_files_themselves_are_evaluated_by_the_names(finished, emnist, tmp_path):
  flags = [f"--model={finished / 'train'}", f"--input={emnist}", "--transpose"]
  named = [*flags, f"--class_names={emnist / 'names.txt'}"]
  assert evaluate.run([*named, f"--output={tmp_path / 'named'}"]) == 0
  assert read_json(tmp_path / "named" / "metrics.json")["accuracy"] > 0.85
  assert {row[0].split("/")[1] for row in read_csv(tmp_path / "named" / "predictions.csv")[1:]} <= set(NAMES)
  with pytest.raises(InputError, match=r"has '1', '2', .* knows 'zero', .*name them with --class_names, or train"):
    evaluate.run([*flags, f"--output={tmp_path / 'unnamed'}"])
  stored = [f"--model={finished / 'train'}", f"--input={finished / 'bottlenecks'}", "--transpose"]
  with pytest.raises(InputError, match="--transpose applies to images"):
    evaluate.run([*stored, f"--output={tmp_path / 'stored'}"])


def test_without_names_the_numbers_that_are_there_are_the_labels(emnist, made, tmp_path, capsys):
  assert convert.run([f"--input={emnist}", f"--output={tmp_path / 'png'}", "--formats=png"]) == 0
  hint = f"{emnist}: by their names these are files of EMNIST, which stores images transposed: add --transpose."
  assert hint in capsys.readouterr().err.splitlines()
  flags = [f"--trunk={made.data.parent / 'trunk'}", "--transpose"]
  assert bottlenecks.run([f"--input={emnist}", f"--output={tmp_path / 'bottlenecks'}", *flags]) == 0
  assert hint not in capsys.readouterr().err
  for name in ("png", "bottlenecks"):
    assert (tmp_path / name / "labels.txt").read_text().split() == [str(number) for number in SHIFTED]
    stats = json.loads((tmp_path / name / "stats.json").read_text())
    assert set(stats["splits"]["testing"]["labels"]) == {str(number) for number in SHIFTED}
