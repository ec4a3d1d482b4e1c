"""The whole chain at full size: Inception v3, 299 x 299, 2,048 numbers, on some thousand MNIST images as class folders.

    python -m benchmarks.inception_v3 --data DIR --trunk keras:InceptionV3 --trunk_weights FILE --output DIR

FILE comes from `python -m benchmarks.inception_weights --output FILE`.

Takes the first images of each digit, trains on 3,000, tests on 1,000, and compares, image by image, what the exported
model says of the image's bytes with what its head says of the stored bottleneck.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path

from benchmarks.commands import table, timed

MIN_ACCURACY = 0.90


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, help="folder of the four IDX files")
  parser.add_argument("--trunk", default="keras:InceptionV3")
  parser.add_argument("--trunk_weights", help="local weights of a keras: trunk")
  parser.add_argument("--training", type=int, default=3000, help="images, of all ten digits together")
  parser.add_argument("--testing", type=int, default=1000)
  parser.add_argument("--output", required=True, type=Path, help="a new or empty folder")
  flags = parser.parse_args()
  output: Path = flags.output
  converted, pictures = output / "convert", output / "pictures"
  timed("convert", f"--input={flags.data}", f"--output={converted}", "--formats=jpg")
  for split, images in (("training", flags.training), ("testing", flags.testing)):
    link_first(converted / split, pictures / split, images // 10)

  model, images = output / "train", flags.training + flags.testing
  weights = (f"--trunk_weights={flags.trunk_weights}",) if flags.trunk_weights else ()
  rows = [("stage", "seconds", "images/s")]

  def stage(name: str, count: int, *arguments: str) -> None:
    seconds = timed(*arguments)
    rows.append((name, f"{seconds:.1f}", f"{count / seconds:,.1f}"))

  bottlenecks = output / "bottlenecks"
  where = (f"--input={pictures}", f"--output={bottlenecks}")
  stage("bottlenecks", images, "bottlenecks", *where, f"--trunk={flags.trunk}", *weights)
  stage("train", flags.training, "train", f"--input={bottlenecks}", f"--output={model}")
  for name, source in (("evaluate", pictures), ("evaluate_stored", bottlenecks)):
    where = (f"--model={model}", f"--input={source}", f"--output={output / name}", "--split=all")
    stage(f"{name}, all images", images, "evaluate", *where)

  of_bytes, of_stored = (read_predictions(output / name) for name in ("evaluate", "evaluate_stored"))
  assert len(of_bytes) == images, f"{len(of_bytes)} predictions of {images} images"
  assert of_bytes.keys() == of_stored.keys()
  differing = [key for key in of_bytes if of_bytes[key]["predicted_digit"] != of_stored[key]["predicted_digit"]]
  assert not differing, f"the exported model and the batch path differ on {differing[:5]}"
  gap = max(abs(float(of_bytes[key]["confidence"]) - float(of_stored[key]["confidence"])) for key in of_bytes)
  testing = [row for row in of_bytes.values() if row["split"] == "testing"]
  right = sum(row["actual_digit"] == row["predicted_digit"] for row in testing)
  assert right / len(testing) >= MIN_ACCURACY, f"accuracy {right / len(testing):.2%} is below {MIN_ACCURACY:.0%}"
  dimensions = json.loads((bottlenecks / "info.json").read_text())["trunk"]["dimensions"]
  print(f"\n{table(rows)}\n")
  print(f"accuracy {right / len(testing):.2%} of {len(testing):,} testing images, {dimensions:,} numbers each")
  print(f"exported model and batch path: same label on all {images:,} images, confidences at most {gap:.4f} % apart")


def link_first(source: Path, target: Path, per_label: int) -> None:
  """Makes class folders of the first `per_label` images, by index, of each class folder of `source`."""
  for folder in sorted(source.iterdir()):
    (target / folder.name).mkdir(parents=True)
    for image in sorted(folder.iterdir(), key=lambda path: int(path.stem))[:per_label]:
      os.link(image, target / folder.name / image.name)


def read_predictions(folder: Path) -> dict[str, dict[str, str]]:
  with (folder / "predictions.csv").open(newline="") as file:
    return {row["file_name"]: row for row in csv.DictReader(file)}


if __name__ == "__main__":
  main()
