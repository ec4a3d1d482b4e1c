"""Who takes part in the benchmark of bottlenecks, and how often: one list."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from beam_retrain.transforms.core.runtimes.variant import is_bfloat16_faster
from benchmarks import before

OURS, BARE, BEFORE = "beam-retrain", "bare graph", before.NAME
LABEL_IMAGE = "label_imageV3.py's way"
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
OPENVINO, TENSORFLOW = "openvino", "tensorflow"
MANY, MORE, SOME, FEW = 2000, 1000, 512, 100


@dataclasses.dataclass(frozen=True)
class Contender:
  """One row of the table.

  Attributes:
    who: its name; together with `precision` and `images` it is met once.
    precision: of its numbers.
    module: its script, in `benchmarks.peers` unless it is ours; empty: a version's own command.
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
    return f"{self.who}, {self.precision}, {self.images:,} images"

  @property
  def is_ours(self) -> bool:
    return self.who.startswith(OURS) and not self.is_before

  @property
  def is_before(self) -> bool:
    return self.who == BEFORE

  @property
  def is_peer(self) -> bool:
    """Whether it is somebody else's: neither ours nor our graph alone."""
    return bool(self.environment)


def _sizes(precision: str) -> list[Contender]:
  """Whole processes over few, some and many images: ours, ours before, and the engine by itself."""
  kinds: list[Contender] = []
  # Where bfloat16 is slower than float32, nobody takes it: its many images are five minutes for nothing.
  many = int(precision != BFLOAT16 or is_bfloat16_faster())
  for images, rounds in ((FEW, 2), (SOME, 1), (MANY, many)):
    kinds += [
      Contender(OURS, precision, "ours", images=images, rounds=rounds, runtime=OPENVINO),
      Contender(BEFORE, precision, "", images=images, rounds=0 if images == MANY else rounds, runtime=OPENVINO),
      Contender("OpenVINO", precision, "openvino_loop", "openvino", images=images, rounds=rounds),
    ]
  return kinds


def _bare(precision: str, runtime: str) -> Contender:
  """Our prepared graph by itself, which has less to do once it is warm; only in a full run."""
  note = ", TensorFlow" if runtime == TENSORFLOW else ""
  return Contender(BARE + note, precision, "ceiling", rounds=0, runtime=runtime)


_TORCH = "PyTorch DataLoader, channels last, compiled"

CONTENDERS = (
  *_sizes(BFLOAT16),
  _bare(BFLOAT16, OPENVINO),
  Contender(_TORCH, BFLOAT16, "torch_loader", "torch", compiles=True),
  Contender("Keras predict", BFLOAT16, "keras_predict", "tensorflow", rounds=0),
  Contender("Ray Data map_batches (OpenVINO)", BFLOAT16, "ray_data", "ray", rounds=0, counts_memory=False),
  Contender("Spark predict_batch_udf (OpenVINO)", BFLOAT16, "spark_udf", "spark", rounds=0, counts_memory=False),
  Contender(f"{OURS}, TensorFlow", BFLOAT16, "ours", rounds=0, runtime=TENSORFLOW),
  _bare(BFLOAT16, TENSORFLOW),
  *_sizes(INT8),
  _bare(INT8, OPENVINO),
  *_sizes(FLOAT32),
  _bare(FLOAT32, OPENVINO),
  Contender(_TORCH, FLOAT32, "torch_loader", "torch", compiles=True),
  Contender("Keras predict", FLOAT32, "keras_predict", "tensorflow"),
  Contender("ONNX Runtime", FLOAT32, "onnx_loop", "torch", images=FEW, compiles=True),
  Contender("ONNX Runtime", FLOAT32, "onnx_loop", "torch", compiles=True),
  Contender(f"{OURS}, TensorFlow", FLOAT32, "ours", rounds=0, runtime=TENSORFLOW),
  _bare(FLOAT32, TENSORFLOW),
  Contender("retrain.py's way", FLOAT32, "retrain_way", "tensorflow", images=64),
  Contender(LABEL_IMAGE, FLOAT32, "label_image_way", "tensorflow", images=24),
)


@dataclasses.dataclass(frozen=True)
class Other:
  """A benchmark of something else than bottlenecks, which writes its rows with `--json FILE`.

  Attributes:
    what: title of its rows.
    module: in `benchmarks`.
    flags: its command line; `{data}` is the folder of the IDX files, `{before}` the checkout of version 0.4,
      `{weights}` the trunk's file.
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
  Other("head, evaluation", "train_head", ("--data={data}",), ("--data={data}",)),
  Other("beside 0.4", "versions", ("--data={data}", "--before={before}", "--trunk_weights={weights}")),
  Other("growth, bundled trunk", "growth", ("--sizes", "1000", "100000"), ("--full",), ("--sizes", "1000", "3000")),
)
