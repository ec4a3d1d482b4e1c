"""`beam-retrain retrain` with the article's flags, on MNIST: what it reaches, and in what time.

    python -m benchmarks.retrain --data DIR --output DIR
    python -m benchmarks.retrain --data DIR --output DIR --trunk keras:InceptionV3 --trunk_weights FILE \\
      --training 2000 --testing 1000

DIR holds the four IDX files. The article's command line runs as it was printed, but for the script's name and, where
TF Hub cannot be reached, `--tfhub_module`. Its own test split is of the training images, so the model is then
evaluated on MNIST's testing images, beside `train --preset retrain` on the very same bottlenecks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.commands import table, timed
from benchmarks.inception_v3 import link_first
from benchmarks.mnist import accuracy

# Two trainings with the same steps and other random draws were within 0.15 points of each other.
MAX_POINTS_APART = 0.003


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, help="folder of the four IDX files")
  parser.add_argument("--trunk", default="bundled", help="of --tfhub_module (default: %(default)s)")
  parser.add_argument("--trunk_weights", help="local weights of a keras: trunk")
  parser.add_argument(
    "--training", type=int, default=60000, help="images of all ten digits together; all of them: 60000"
  )
  parser.add_argument("--testing", type=int, default=10000, help="likewise; all of them: 10000")
  parser.add_argument("--steps", type=int, default=4000, help="--how_many_training_steps (default: retrain.py's own)")
  parser.add_argument("--output", required=True, type=Path, help="a new or empty folder")
  flags = parser.parse_args()
  output: Path = flags.output
  pictures = output / "mnist_jpg"
  rows = [("command", "images", "seconds", "accuracy on MNIST's testing images")]
  timed("convert", f"--input={flags.data}", f"--output={output / 'convert'}", "--formats=jpg")
  for split, images, all_images in (("training", flags.training, 60000), ("testing", flags.testing, 10000)):
    per_label = all_images if images == all_images else images // 10
    link_first(output / "convert" / split, pictures / split, per_label)

  weights = (f"--trunk_weights={flags.trunk_weights}",) if flags.trunk_weights else ()
  work = output / "bottlenecks" / "beam_retrain"
  seconds = timed(
    "retrain",
    f"--bottleneck_dir={output / 'bottlenecks'}/",
    f"--how_many_training_steps={flags.steps}",
    "--model_dir=inception/",
    f"--summaries_dir={output / 'training_summaries' / 'basic'}",
    f"--output_graph={output / 'retrained_graph.pb'}",
    f"--output_labels={output / 'retrained_labels.txt'}",
    f"--image_dir={pictures / 'training'}",
    f"--intermediate_output_graphs_dir={output / 'intermediate'}",
    f"--checkpoint_path={output / '_retrain_checkpoint'}",
    f"--tfhub_module={flags.trunk}",
    *weights,
  )
  # One evaluation after the other, each over all testing images by their bytes.
  reached = {}
  reached["retrain"] = _evaluate(work / "train", pictures, output / "evaluate")
  rows.append(
    (
      "retrain, the article's flags",
      f"{_images(work / 'bottlenecks'):,}",
      f"{seconds:.1f}",
      f"{reached['retrain']:.2%}",
    )
  )
  preset = output / "train_preset"
  seconds = timed(
    "train",
    f"--input={work / 'bottlenecks'}",
    f"--output={preset}",
    "--preset=retrain",
    f"--training_steps={flags.steps}",
  )
  reached["preset"] = _evaluate(preset, pictures, output / "evaluate_preset")
  rows.append(("train --preset retrain, on its bottlenecks", "", f"{seconds:.1f}", f"{reached['preset']:.2%}"))
  apart = abs(reached["retrain"] - reached["preset"])
  assert apart <= MAX_POINTS_APART, f"retrain and train --preset retrain are {apart:.2%} apart: {reached}"
  print(f"\n{table(rows)}")


def _evaluate(model: Path, pictures: Path, output: Path) -> float:
  timed("evaluate", f"--model={model}", f"--input={pictures}", f"--output={output}", "--split=testing")
  return accuracy(output, "accuracy")


def _images(bottlenecks: Path) -> int:
  images: int = json.loads((bottlenecks / "stats.json").read_text())["outputs"]
  return images


if __name__ == "__main__":
  main()
