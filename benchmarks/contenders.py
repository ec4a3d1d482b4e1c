"""Who takes part in the benchmark of bottlenecks, and how often: one list."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

OURS, BARE = "beam-retrain", "bare graph"
LABEL_IMAGE = "label_imageV3.py's way"
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
OPENVINO, TENSORFLOW = "openvino", "tensorflow"
MANY, MORE, SOME = 2000, 1000, 512


@dataclasses.dataclass(frozen=True)
class Contender:
  """One row of the table.

  Attributes:
    who: its name; together with `precision` it is met once.
    precision: of its numbers.
    module: its script, in `benchmarks.peers` unless it is ours.
    environment: the requirements that it runs with; empty: this project's own.
    images: how many it does.
    rounds: how many of the interleaved rounds it takes part in; 0: only in a full run.
    runtime: of ours, what runs the trunk.
    compiles: whether it keeps what it has compiled, and so is run once before.
    counts_memory: whether its processes are this benchmark's to wait for, so that their memory is told.
  """

  who: str
  precision: str
  module: str
  environment: str = ""
  images: int = SOME
  rounds: int = 1
  runtime: str = ""
  compiles: bool = False
  counts_memory: bool = True

  @property
  def name(self) -> str:
    return f"{self.who}, {self.precision}"

  @property
  def is_ours(self) -> bool:
    return self.who.startswith(OURS)

  @property
  def is_peer(self) -> bool:
    """Whether it is somebody else's: neither ours nor our graph alone."""
    return bool(self.environment)


def _own(precision: str, images: int, rounds: int, runtime: str, note: str = "") -> list[Contender]:
  """Ours, and the same prepared graph by itself, which has less to do once it is warm."""
  return [
    Contender(OURS + note, precision, "ours", images=images, rounds=rounds, runtime=runtime),
    Contender(BARE + note, precision, "ceiling", images=min(images, MORE), rounds=rounds, runtime=runtime),
  ]


CONTENDERS = (
  *_own(BFLOAT16, MANY, 3, OPENVINO),
  Contender("OpenVINO", BFLOAT16, "openvino_loop", "openvino", images=MORE, rounds=3),
  Contender("PyTorch DataLoader, channels last, compiled", BFLOAT16, "torch_loader", "torch", compiles=True),
  Contender("Ray Data map_batches (OpenVINO)", BFLOAT16, "ray_data", "ray", counts_memory=False),
  Contender("Spark predict_batch_udf (OpenVINO)", BFLOAT16, "spark_udf", "spark", counts_memory=False),
  *_own(BFLOAT16, SOME, 1, TENSORFLOW, ", TensorFlow"),
  Contender("Keras predict", BFLOAT16, "keras_predict", "tensorflow"),
  *_own(INT8, MANY, 2, OPENVINO),
  Contender("OpenVINO", INT8, "openvino_loop", "openvino", images=MORE, rounds=2),
  *_own(FLOAT32, SOME, 2, OPENVINO),
  Contender("OpenVINO", FLOAT32, "openvino_loop", "openvino", rounds=2),
  *_own(FLOAT32, SOME, 0, TENSORFLOW, ", TensorFlow"),
  Contender("PyTorch DataLoader, channels last, compiled", FLOAT32, "torch_loader", "torch", rounds=0, compiles=True),
  Contender("Keras predict", FLOAT32, "keras_predict", "tensorflow"),
  Contender("retrain.py's way", FLOAT32, "retrain_way", "tensorflow", images=64),
  Contender(LABEL_IMAGE, FLOAT32, "label_image_way", "tensorflow", images=24),
)


@dataclasses.dataclass(frozen=True)
class Other:
  """A benchmark of something else than bottlenecks, which writes its rows with `--json FILE`.

  Attributes:
    what: title of its rows.
    module: in `benchmarks`.
    flags: its command line; `{data}` is the folder of the IDX files.
    full: what a full run has instead.
    trial: what a run that only tries it out has instead; None: it leaves this out.
  """

  what: str
  module: str
  flags: Sequence[str] = ()
  full: Sequence[str] = ()
  trial: Sequence[str] | None = None


_CONVERT = ("--input={data}", "--rounds")

OTHERS = (
  Other("JPGs of 70,000 images", "convert_mnist", (*_CONVERT, "2"), (*_CONVERT, "5"), (*_CONVERT, "1")),
  Other("head, evaluation", "train_head"),
  Other("growth, bundled trunk", "growth", ("--sizes", "1000", "100000"), ("--full",), ("--sizes", "1000", "3000")),
)
