"""The article, redone: all 70,000 images of MNIST through every stage and a really trained Inception v3, 299 x 299.

  python -m benchmarks.article --data DIR --trunk_weights FILE --output DIR

DIR holds the four IDX files; FILE comes from `python -m benchmarks.inception_weights --output FILE`. Prints the time of
each stage, a row per label, and the result beside the article's: its accuracy as published, and the rate of its
evaluation script, whose way (a graph that grows, new sessions for every image) is measured on these cores with the
same network over a few dozen of the images. Ends with exit code 1 where the accuracy is below --min_accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beam_retrain.reporting.cost_table import duration
from beam_retrain.reporting.text_tables import per_label_table
from benchmarks.commands import table, timed
from benchmarks.measurements import steady_rate
from benchmarks.processes import run_process

# Of 2018, as published: 10,000 testing images, one after the other, took a day.
ARTICLE_ACCURACY = 0.9331
ARTICLE_SECS = 24 * 3600
MIN_ACCURACY = 0.955
TESTING_IMAGES = 10_000


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, help="folder of the four IDX files")
  parser.add_argument("--trunk", default="keras:InceptionV3", help="as of `bottlenecks` (default: %(default)s)")
  parser.add_argument("--trunk_weights", type=Path, help="local weights of a keras: trunk; needed for the script's way")
  parser.add_argument("--precision", default="auto", help="as of `bottlenecks` (default: %(default)s)")
  parser.add_argument("--runtime", default="auto", help="likewise (default: %(default)s)")
  parser.add_argument("--script_images", type=int, default=36, help="images for the script's way; 0: leave it out")
  parser.add_argument("--min_accuracy", type=float, default=MIN_ACCURACY, help="0..1 (default: %(default)s)")
  parser.add_argument("--output", required=True, type=Path, help="a new or empty folder")
  parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
  flags = parser.parse_args()
  output: Path = flags.output
  pictures, bottlenecks, model, evaluation = (output / name for name in ("convert", "bottlenecks", "train", "evaluate"))
  kind = (f"--precision={flags.precision}", f"--runtime={flags.runtime}")
  weights = (f"--trunk_weights={flags.trunk_weights}",) if flags.trunk_weights else ()

  seconds = {"convert": timed("convert", f"--input={flags.data}", f"--output={pictures}")}
  trunk = (f"--trunk={flags.trunk}", *weights, *kind)
  seconds["bottlenecks"] = timed("bottlenecks", f"--input={pictures}", *trunk, f"--output={bottlenecks}")
  seconds["train"] = timed("train", f"--input={bottlenecks}", f"--output={model}")
  what = (f"--model={model}", f"--input={pictures}", "--split=testing")
  seconds["evaluate"] = timed("evaluate", *what, f"--output={evaluation}")
  script_rate = None
  if flags.script_images and flags.trunk_weights:
    script_rate = measure_script(pictures / "testing", flags.trunk_weights, flags.script_images, output / "script")

  metrics = json.loads((evaluation / "metrics.json").read_text())
  splits = json.loads((bottlenecks / "stats.json").read_text())["splits"]
  images = {split: totals["outputs"] for split, totals in splits.items()}
  counts = {**dict.fromkeys(seconds, sum(images.values())), "train": images["training"], "evaluate": metrics["total"]}
  print(
    f"\n{stages_table(seconds, counts)}\n\n{per_label_table(metrics)}\n\n{comparison(metrics, seconds, script_rate)}"
  )
  if flags.json:
    found: list[dict[str, Any]] = [{"name": f"article: {name}", "seconds": secs} for name, secs in seconds.items()]
    found[-1] |= {"accuracy": metrics["accuracy"], "script_images_per_sec": script_rate}
    flags.json.write_text(json.dumps(found, indent=1))
  if metrics["accuracy"] < flags.min_accuracy:
    print(f"accuracy {metrics['accuracy']:.2%} is below {flags.min_accuracy:.1%}", file=sys.stderr)
    return 1
  return 0


def measure_script(pictures: Path, weights: Path, images: int, work: Path) -> float | None:
  """Returns images/s of the article's evaluation script, once it runs; None: too few images to tell.

  Args:
    images: folder of JPGs.
    weights: Keras's, of the network.
    images: how many to take.
    work: folder to write.
  """
  work = work.absolute()
  network, result = work / "network", work / "script.json"
  write_network = [sys.executable, "-m", "benchmarks.network"]
  run_process(
    [*write_network, f"--trunk_weights={weights.absolute()}", f"--output={network}"], work / "network.log", {}
  )
  # A few of every label, in a folder of their own, as the script listed what it was to score.
  some = work / "pictures"
  some.mkdir(parents=True, exist_ok=True)
  found = sorted(pictures.rglob("*.jpg"))
  for path in found[:: max(1, len(found) // images)][:images]:
    os.link(path, some / f"{path.parent.name}-{path.name}")
  command = [sys.executable, "-m", "benchmarks.peers.label_image_way", f"--pictures={some}", f"--network={network}"]
  run_process([*command, f"--output={result}"], work / "script.log", {})
  return steady_rate(json.loads(result.read_text())["ends"])


def stages_table(seconds: Mapping[str, float], counts: Mapping[str, int]) -> str:
  rows: list[tuple[str, ...]] = [("stage", "images", "time", "images/s")]
  for stage, secs in seconds.items():
    rows.append((stage, f"{counts[stage]:,}", duration(secs), f"{counts[stage] / secs:,.0f}"))
  rows.append(("all", "", duration(sum(seconds.values())), ""))
  return table(rows)


def comparison(metrics: Mapping[str, Any], seconds: Mapping[str, float], script_rate: float | None) -> str:
  """Returns the table: the article, its script on these cores, and this project.

  Args:
    metrics: of the evaluation.
    seconds: stage -> time.
    script_rate: images/s of the script's way, on these cores.
  """
  rows: list[tuple[str, ...]] = [("", "accuracy", f"time for {TESTING_IMAGES:,} images", "images/s")]
  rows.append(
    ("the article", f"{ARTICLE_ACCURACY:.2%}", duration(ARTICLE_SECS), f"{TESTING_IMAGES / ARTICLE_SECS:.2f}")
  )
  if script_rate:
    rows.append(("its script, these cores", "", duration(TESTING_IMAGES / script_rate), f"{script_rate:.2f}"))
  rate = metrics["total"] / seconds["evaluate"]
  low, high = metrics["accuracy_interval_95"]
  accuracy = f"{metrics['accuracy']:.2%} (95 % interval {100 * low:.1f} to {100 * high:.1f})"
  rows.append(("this project, these cores", accuracy, duration(TESTING_IMAGES / rate), f"{rate:,.0f}"))
  return table(rows)


if __name__ == "__main__":
  sys.exit(main())
