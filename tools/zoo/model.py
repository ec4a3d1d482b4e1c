"""Trains the model that the zoo goes through: the bundled trunk on scikit-learn's handwritten digits."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

COUNT = 300


def train_on_digits(folder: Path) -> Path:
  """Returns the output of `train`, made in a new folder."""
  from sklearn.datasets import load_digits

  from beam_retrain.pipelines.cli import main

  digits = load_digits()
  for number in range(COUNT):
    path = folder / "data" / str(digits.target[number]) / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((digits.images[number] * 15).astype(np.uint8)).save(path)
  told = io.StringIO()
  with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
    shards = [f"--input={folder / 'data'}", f"--output={folder / 'bottlenecks'}", "--runner=FnApiRunner"]
    assert main(["bottlenecks", *shards, "--trunk=bundled"]) == 0, told.getvalue()
    assert main(["train", f"--input={folder / 'bottlenecks'}", f"--output={folder / 'model'}"]) == 0, told.getvalue()
  return folder / "model"
