"""The benchmark's chart: whole processes by number of images, and where the seconds of a small job go.

python -m benchmarks.charts .bench/results.json docs/results.svg
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.contenders import BEFORE, BFLOAT16, CONTENDERS, FEW, FLOAT32, INT8, MANY, OURS, SOME
from benchmarks.where import KINDS

_SHOWN = (OURS, BEFORE, "OpenVINO", "Keras predict", "PyTorch DataLoader, channels last, compiled")
_SIZES = (FEW, SOME, MANY)


def draw(results: Mapping[str, Any], target: Path) -> None:
  """Writes the chart as SVG; the same results give the same bytes.

  Args:
    results: what `benchmarks.bench` writes to results.json.
  """
  import matplotlib as mpl

  mpl.use("svg")
  from matplotlib import pyplot

  mpl.rcParams.update({"svg.hashsalt": "beam-retrain", "svg.fonttype": "none", "font.size": 9})
  figure, axes = pyplot.subplots(1, 4, figsize=(15, 4), layout="constrained")
  for axis, precision in zip(axes, (BFLOAT16, INT8, FLOAT32), strict=False):
    _draw_sizes(axis, results["results"], precision)
  axes[0].set_ylabel("whole process, images/s")
  axes[0].margins(y=0.35)
  axes[0].legend(fontsize=7)
  _draw_where(axes[3], results.get("where", {}))
  figure.savefig(target, format="svg", metadata={"Date": None})
  pyplot.close(figure)


def _draw_sizes(axis: Any, results: Mapping[str, Any], precision: str) -> None:
  width = 0.8 / len(_SHOWN)
  for number, who in enumerate(_SHOWN):
    rates = {c.images: _rate(results.get(c.name, ())) for c in CONTENDERS if (c.who, c.precision) == (who, precision)}
    places = [position + (number - len(_SHOWN) / 2 + 0.5) * width for position in range(len(_SIZES))]
    axis.bar(places, [rates.get(size, 0.0) for size in _SIZES], width, label=who.split(",")[0])
  axis.set_xticks(range(len(_SIZES)), [f"{size:,} images" for size in _SIZES])
  axis.set_title(f"Inception v3, 299 x 299, {precision}")


def _rate(runs: Any) -> float:
  return runs[0]["images"] / statistics.median(run["whole_secs"] for run in runs) if runs else 0.0


def _draw_where(axis: Any, where: Mapping[str, Mapping[str, float]]) -> None:
  names = list(reversed(where))
  left = [0.0] * len(names)
  for kind in KINDS:
    seconds = [where[name].get(kind, 0.0) for name in names]
    axis.barh(names, seconds, left=left, label=kind)
    left = [one + other for one, other in zip(left, seconds, strict=True)]
  axis.set_xlabel("seconds")
  axis.set_title(f"{FEW} images: where the seconds go")
  axis.margins(y=0.5)
  axis.legend(fontsize=7)


if __name__ == "__main__":
  draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
