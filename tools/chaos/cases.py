"""The commands that chaos meets, with what they read and write below one folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

_EXACT = ("--precision=float32", "--runtime=tensorflow")
_SMALL = ("--batch_size=8", "--trunk_threads=1")
_LOCAL = ("--runner=FnApiRunner",)
_TWO = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
NIGHT_BEFORE, NIGHT = "2026-11-20", "2026-11-21"


@dataclasses.dataclass(frozen=True)
class Case:
  """A command line, and its folders below the place where it works."""

  name: str
  argv: tuple[str, ...]  # `{}` stands for that place
  needs: tuple[str, ...]  # folders that are there before
  output: str = ""  # the folder that it writes; empty for none
  stages: tuple[str, ...] = ()  # finished folders in the output, each with `COMPLETED`
  saved_as: str = ""  # the name of the undisturbed output, if another; see `placed`
  is_cold: bool = False  # whether the cache is empty
  forks: bool = False  # whether it forks its workers, which it does only where TensorFlow is not loaded
  runner: tuple[str, ...] = _LOCAL
  takes_runner: bool = True

  def command_line(self, place: Path) -> list[str]:
    words = (*self.argv, *(self.runner if self.takes_runner else ()))
    return [word.replace("{}", str(place)) for word in words]

  @property
  def command(self) -> str:
    return self.argv[0]

  def cold(self) -> Case:
    return dataclasses.replace(self, name=f"{self.name}, cold cache", is_cold=True)

  def with_two(self) -> Case:
    return dataclasses.replace(self, name=f"{self.name}, two processes", runner=_TWO)


CONVERT = Case(
  "convert", ("convert", "--input={}/data", "--output={}/convert", "--classes=2"), ("data",), "convert", ("convert",)
)
CONVERT_FORKED = dataclasses.replace(CONVERT, name="convert, two processes", runner=(), forks=True)
BOTTLENECKS = Case(
  "bottlenecks",
  ("bottlenecks", "--input={}/convert", "--output={}/bottlenecks", "--trunk=bundled", *_SMALL, *_EXACT),
  ("convert",),
  "bottlenecks",
  ("bottlenecks",),
)
CONVERT_IMAGES = dataclasses.replace(
  CONVERT,
  name="convert, images alone",
  argv=("convert", "--input={}/data", "--output={}/images", "--classes=2", "--formats=jpg"),
  output="images",
  stages=("images",),
)
EMBED_IMAGES = dataclasses.replace(
  BOTTLENECKS,
  name="bottlenecks of images alone",
  argv=("bottlenecks", "--input={}/images", "--output={}/embedded", *BOTTLENECKS.argv[3:]),
  needs=("images",),
  output="embedded",
  stages=("embedded",),
)
TRAIN = Case(
  "train",
  ("train", "--input={}/bottlenecks", "--output={}/train"),
  ("bottlenecks",),
  "train",
  ("train",),
  takes_runner=False,
)
EVALUATE = Case(
  "evaluate",
  ("evaluate", "--model={}/train", "--input={}/convert", "--output={}/evaluate", *_SMALL),
  ("train", "convert"),
  "evaluate",
  ("evaluate",),
)
_NIGHT = ("reevaluate", "--model={}/train", "--input={}/convert/testing", "--history={}/nights", *_SMALL)
FIRST_NIGHT = Case(
  "reevaluate, the first night",
  (*_NIGHT, f"--date={NIGHT_BEFORE}"),
  ("train", "convert"),
  "nights",
  (f"nights/{NIGHT_BEFORE}",),
  "nights@before",
)
REEVALUATE = Case(
  "reevaluate", (*_NIGHT, f"--date={NIGHT}"), ("train", "convert", "nights@before"), "nights", (f"nights/{NIGHT}",)
)
PREDICT = Case("predict", ("predict", "--model={}/train", "{}/photos"), ("train", "photos"), takes_runner=False)
RUN = Case(
  "run",
  ("run", "--data={}/data", "--trunk=bundled", "--classes=2", "--output={}/run", *_EXACT),
  ("data",),
  "run",
  ("run/convert", "run/bottlenecks", "run/train", "run/evaluate"),
)
RETRAIN = Case(
  "retrain",
  (
    *("retrain", "--image_dir={}/photos", "--tfhub_module=bundled", "--bottleneck_dir={}/retrain/bottleneck"),
    *("--work_dir={}/retrain/work", "--output_graph={}/retrain/graph.pb", "--output_labels={}/retrain/labels.txt"),
    *("--saved_model_dir={}/retrain/saved_model", "--summaries_dir={}/retrain/logs"),
    *("--intermediate_output_graphs_dir={}/retrain/steps/", "--checkpoint_path={}/retrain/checkpoint"),
    *("--how_many_training_steps=20", "--testing_percentage=25", "--validation_percentage=20", *_EXACT),
  ),
  ("photos",),
  "retrain",
  ("retrain/work/bottlenecks", "retrain/work/train", "retrain/work/evaluate"),
)
LABEL_IMAGE = Case(
  "label_image",
  (
    *("label_image", "--process_mode=2", "--graph={}/retrain/graph.pb", "--labels={}/retrain/labels.txt"),
    *("--input_layer=Placeholder", "--output_layer=final_result", "--directory_name={}/photos"),
    *("--output={}/labelled", *_SMALL),
  ),
  ("retrain", "photos"),
  "labelled",
  ("labelled",),
)
ALL = (CONVERT, BOTTLENECKS, TRAIN, EVALUATE, REEVALUATE, PREDICT, RUN, RETRAIN, LABEL_IMAGE)  # every command, once
UNDISTURBED = (*ALL[:4], CONVERT_IMAGES, EMBED_IMAGES, FIRST_NIGHT, *ALL[4:])
"""What makes the finished folders, in an order in which each finds what it needs."""
