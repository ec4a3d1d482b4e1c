"""What grows with the data: whole commands over more and more generated images, time and the memory of each process.

    python -m benchmarks.growth [--output DIR] [--full]

The images are 8 x 8 pixels of noise in IDX files, a tenth of them for testing: so small that a million of them takes
no longer than the trunk does. For each number of images and of processes, `bottlenecks` is run in an empty folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from beam_retrain.transforms.core.run.flags import positive_int
from benchmarks.commands import COMMAND, table
from benchmarks.process_tree import TreePeaks, run_watched

_SIZES = (1_000, 10_000, 100_000)
_FULL_SIZES = (7_000, 70_000, 1_000_000)
_PIXELS = 8
_LABELS = 10
_BLOCK = 10_000
_STAGES = ("convert", "bottlenecks", "evaluate", "all")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--output", type=Path, help="folder to work in (default: a temporary one)")
  parser.add_argument("--sizes", type=positive_int, nargs="+", metavar="N", help=f"default: {_shown(_SIZES)}")
  parser.add_argument("--full", action="store_true", help=f"{_shown(_FULL_SIZES)} images (takes half an hour)")
  parser.add_argument("--processes", type=positive_int, nargs="+", default=[1, 2], metavar="N", help="default: 1 2")
  parser.add_argument("--trunk", default="bundled", help="as of `bottlenecks` (default: %(default)s)")
  parser.add_argument(
    "--stage",
    choices=_STAGES,
    default="bottlenecks",
    help="convert (to records), bottlenecks, evaluate (stored bottlenecks, by a head trained on the fewest), or all",
  )
  parser.add_argument("--folders", action="store_true", help="class folders of PNG files, not IDX files")
  parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
  flags = parser.parse_args()
  sizes = flags.sizes or (_FULL_SIZES if flags.full else _SIZES)
  with tempfile.TemporaryDirectory(prefix="growth-", dir=flags.output) as work:
    rows = measure(Path(work), sorted(sizes), flags)
  print(f"\n{growth_table(rows)}")
  if flags.json:
    flags.json.write_text(json.dumps([{**row, **_named(row)} for row in rows], indent=1))


def _shown(sizes: Sequence[int]) -> str:
  return ", ".join(f"{size:,}" for size in sizes)


def measure(work: Path, sizes: Sequence[int], flags: argparse.Namespace) -> list[dict[str, Any]]:
  """Returns a row per command that was run: `stage`, `images`, `processes`, `seconds`, `peaks_mb`."""
  rows = []
  stages = _STAGES[:-1] if flags.stage == "all" else (flags.stage,)
  for size in sizes:
    data = work / "data"
    if flags.folders:
      write_folders(data, size)
    else:
      write_idx(data, size)
    made = work / "bottlenecks"
    for processes in flags.processes:
      for stage in stages:
        output = work / stage
        shutil.rmtree(output, ignore_errors=True)
        if stage == "evaluate" and not (work / "model").exists():
          run_watched([*COMMAND, "train", f"--input={made}", f"--output={work / 'model'}"])
        peaks = run_watched([*COMMAND, *_arguments(stage, data, work, flags.trunk, processes)])
        rows.append({"stage": stage, "images": size, "processes": processes, **peaks._asdict()})
        print(_describe(stage, size, processes, peaks), flush=True)
    shutil.rmtree(data)
  return rows


def _arguments(stage: str, data: Path, work: Path, trunk: str, processes: int) -> list[str]:
  arguments = {
    "convert": [f"--input={data}", "--formats=tfrecord"],
    "bottlenecks": [f"--input={data}", f"--trunk={trunk}"],
    "evaluate": [f"--input={work / 'bottlenecks'}", f"--model={work / 'model'}"],
  }[stage]
  in_processes = ["--direct_running_mode=multi_processing", f"--direct_num_workers={processes}"]
  return [stage, *arguments, f"--output={work / stage}", *(in_processes if processes > 1 else [])]


def write_idx(folder: Path, count: int) -> None:
  """Writes four IDX files of `count` images in all, block by block."""
  folder.mkdir()
  testing = count // 10
  for name, number, seed in (("train", count - testing, 0), ("t10k", testing, 1)):
    random = np.random.default_rng(seed)
    with (
      (folder / f"{name}-images-idx3-ubyte").open("wb") as images,
      (folder / f"{name}-labels-idx1-ubyte").open("wb") as labels,
    ):
      images.write(np.array([0x803, number, _PIXELS, _PIXELS], ">u4").tobytes())
      labels.write(np.array([0x801, number], ">u4").tobytes())
      for start in range(0, number, _BLOCK):
        block = min(_BLOCK, number - start)
        images.write(random.integers(0, 256, (block, _PIXELS, _PIXELS), np.uint8).tobytes())
        labels.write((np.arange(start, start + block) % _LABELS).astype(np.uint8).tobytes())


def write_folders(folder: Path, count: int) -> None:
  """Writes `count` PNG files into ten class folders."""
  from beam_retrain.transforms.core.images.encode import encode_pixels

  random = np.random.default_rng(0)
  for label in range(_LABELS):
    (folder / str(label)).mkdir(parents=True)
  for number in range(count):
    pixels = random.integers(0, 256, (_PIXELS, _PIXELS), np.uint8)
    (folder / str(number % _LABELS) / f"{number}.png").write_bytes(encode_pixels(pixels, "png"))


def _describe(stage: str, size: int, processes: int, peaks: TreePeaks) -> str:
  return f"{stage}: {size:,} images, {processes} process(es): {peaks.seconds:.1f} s, {_memory(peaks.peaks_mb)} MB"


def _memory(peaks_mb: Sequence[float]) -> str:
  return " + ".join(f"{peak:,.0f}" for peak in peaks_mb)


def _named(row: dict[str, Any]) -> dict[str, str]:
  """Returns what the benchmark's own table shows of a row beside its `seconds`."""
  processes = "1 process" if row["processes"] == 1 else f"{row['processes']} processes"
  name = f"{row['stage']}, {row['images']:,} images, {processes}"
  return {"name": name, "note": f"peak {_memory(row['peaks_mb'])} MB"}


def growth_table(rows: Sequence[dict[str, Any]]) -> str:
  """Returns a Markdown table: what each size took, the time per image beyond the fewest, and memory."""
  lines: list[tuple[str, ...]] = [
    ("stage", "images", "processes", "seconds", "ms per image beyond the fewest", "peak MB of each process")
  ]
  for row in rows:
    first = next(other for other in rows if _kind(other) == _kind(row))
    more = row["images"] - first["images"]
    each = f"{(row['seconds'] - first['seconds']) / more * 1000:.3f}" if more else ""
    lines.append(
      (
        row["stage"],
        f"{row['images']:,}",
        str(row["processes"]),
        f"{row['seconds']:.1f}",
        each,
        _memory(row["peaks_mb"]),
      )
    )
  return table(lines)


def _kind(row: dict[str, Any]) -> tuple[str, int]:
  return row["stage"], row["processes"]


if __name__ == "__main__":
  sys.exit(main())
