"""A training with retrain.py's flags, and one without, for the tests of what they leave."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import NamedTuple

import pytest
import tensorflow as tf

from beam_retrain.trainer import task

# Of the 45 steps 0 to 44, the looks are after 0, 10, 20, 30, 40 and 44, the graphs after 22 and 44, which is the last.
LOOKS = [0, 10, 20, 30, 40, 44]


GRAPHS = [22, 44]


class LikeRetrain(NamedTuple):
  """A training with every flag. Attributes: folder: everything is below it; out: what it printed."""

  folder: Path
  out: str


def flags_below(folder: Path) -> list[str]:
  return [
    "--preset=retrain",
    "--how_many_training_steps=45",
    "--train_batch_size=20",
    "--learning_rate=0.002",
    "--eval_step_interval=10",
    "--validation_batch_size=33",
    f"--summaries_dir={folder}/logs",
    f"--intermediate_output_graphs_dir={folder}/made/graphs",
    "--intermediate_store_frequency=22",
    f"--checkpoint_path={folder}/made/too/_checkpoint",
    "--final_tensor_name=scope/My_result",
  ]


def run(bottlenecks: Path, output: Path, *flags: str) -> int:
  return task.run([f"--input={bottlenecks}", f"--output={output}", *flags])


@pytest.fixture(scope="module")
def like_retrain(tmp_path_factory, bottlenecks_folder) -> LikeRetrain:
  folder = tmp_path_factory.mktemp("like_retrain")
  with contextlib.redirect_stdout(io.StringIO()) as shown:
    assert run(bottlenecks_folder, folder / "model", *flags_below(folder)) == 0
  return LikeRetrain(folder, shown.getvalue())


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory, bottlenecks_folder) -> Path:
  """The same training, without the flags that only look at it."""
  folder = tmp_path_factory.mktemp("plain") / "model"
  assert run(bottlenecks_folder, folder, *flags_below(folder)[:4]) == 0
  return folder


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
  found: dict[str, list[tuple[int, float]]] = {}
  for path in sorted(folder.iterdir()):
    for event in tf.compat.v1.train.summary_iterator(str(path)):
      for value in event.summary.value:
        assert value.metadata.plugin_data.plugin_name == "scalars"
        found.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
  return found


def everything_in(folder: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))
  }
