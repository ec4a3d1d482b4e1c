"""`make fuzz`: images changed at random through all doors, in processes with limits of time and memory.

Every image is made from the seed and its number: `python -m tools.zoo.fuzz --only NUMBER` tries one again, and writes
it to a file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from tools.zoo.mutate import mutant

BATCH = 32
BATCH_SECONDS = 30.0  # within which a batch of images is through all doors, however busy the machine is
IMAGE_SECONDS = 10.0
MEMORY = 3 << 30  # bytes of address space that a process may take beyond what it has when it begins
_MOST_SHOWN = 20


class Finding(NamedTuple):
  number: int
  variant: str
  what: str


class Tried(NamedTuple):
  """What came of a batch: findings, how often each reason was given, the peak of memory in bytes."""

  findings: list[Finding]
  reasons: Counter[str]
  peak: int


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(prog="python -m tools.zoo.fuzz", description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--count", type=int, default=50_000, help="images (default 50,000)")
  parser.add_argument("--seconds", type=float, default=float("inf"), help="stop so long after the processes are ready")
  parser.add_argument("--seed", type=int, default=1)
  parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
  parser.add_argument("--model", help="output of `train` (default: one is trained on digits)")
  parser.add_argument("--only", type=int, metavar="NUMBER", help="try this image alone")
  given = parser.parse_args(argv)
  started = time.monotonic()
  with contextlib.ExitStack() as stack:
    model = given.model or _train_on_digits(stack.enter_context(tempfile.TemporaryDirectory(prefix="zoo-")))
    if given.only is not None:
      path = Path(f"fuzz-{given.seed}-{given.only}")
      path.write_bytes(mutant(given.seed, given.only)[1])
      print(f"wrote {path}")
      batches = [[given.only]]
    else:
      batches = [list(range(at, min(at + BATCH, given.count))) for at in range(0, given.count, BATCH)]
    tried = list(_run(model, given.seed, batches, given.jobs, given.seconds))
  return _report(tried, time.monotonic() - started)


def _train_on_digits(folder: str) -> str:
  from beam_retrain.pipelines.cli import main as run

  told = io.StringIO()
  with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
    assert run(["run", "--data=digits", "--trunk=bundled", f"--output={folder}"]) == 0, told.getvalue()
  return f"{folder}/train"


def _report(tried: Sequence[Tried], seconds: float) -> int:
  reasons = sum((one.reasons for one in tried), Counter[str]())
  findings = sorted(finding for one in tried for finding in one.findings)
  peak = max((one.peak for one in tried), default=0)
  print(f"{reasons.total():,} images in {seconds:.0f} s, at most {peak / 1e6:.0f} MB more than at the start:")
  print("  " + ", ".join(f"{count:,} {reason or 'used'}" for reason, count in sorted(reasons.items())))
  for what, count in Counter(finding.what for finding in findings).most_common(_MOST_SHOWN):
    first = next(finding for finding in findings if finding.what == what)
    print(f"FOUND {count} times: {what} (first: --only {first.number}, from {first.variant})")
  print(f"{len(findings)} findings" if findings else "no disagreement, crash, hang or unbounded memory")
  return int(bool(findings) or not reasons)


class _Worker:
  """A process with its pipe, and the batch that it is at."""

  def __init__(self, model: str, seed: int):
    context = multiprocessing.get_context("spawn")
    self.pipe, theirs = context.Pipe()
    self.process = context.Process(target=_work, args=(model, seed, theirs), daemon=True)
    self.process.start()
    theirs.close()
    self.numbers: list[int] = []
    self.until = 0.0
    self.pipe.poll(300)  # until it is ready
    if self.receive() is None:
      raise SystemExit("a process could not load the model")

  def send(self, numbers: list[int]) -> None:
    self.numbers, self.until = numbers, time.monotonic() + (BATCH_SECONDS if len(numbers) > 1 else IMAGE_SECONDS)
    self.pipe.send(numbers)

  def receive(self) -> Tried | None:
    """Returns what came of the batch; None if the process has died."""
    try:
      found: Tried = self.pipe.recv()
      return found
    except (EOFError, OSError):
      return None

  def stop(self) -> int | None:
    self.process.kill()
    self.process.join()
    self.pipe.close()
    return self.process.exitcode


def _run(model: str, seed: int, batches: list[list[int]], jobs: int, seconds: float) -> Iterator[Tried]:
  """Gives batches to processes, each at least one; tries one that fails image by image."""
  waiting, again = batches[::-1], list[list[int]]()
  workers: list[_Worker] = []
  until = float("inf")
  try:
    while again or (waiting and time.monotonic() < until) or any(worker.numbers for worker in workers):
      while len(workers) < min(jobs, len(batches)):
        workers.append(_Worker(model, seed))
      for worker in workers:
        if not worker.numbers and (again or (waiting and time.monotonic() < until)):
          worker.send((again or waiting).pop())
      until = min(until, time.monotonic() + seconds)
      ready = wait([worker.pipe for worker in workers if worker.numbers], timeout=0.5)
      for worker in list(workers):
        if not worker.numbers:
          continue
        is_late = time.monotonic() > worker.until
        tried = worker.receive() if worker.pipe in ready else None
        if tried is not None:
          worker.numbers = []
          yield tried
        elif worker.pipe in ready or is_late:
          workers.remove(worker)
          code, numbers = worker.stop(), worker.numbers
          if len(numbers) == 1:
            what = "hangs" if is_late else f"its process dies: exit code {code}"
            yield Tried([Finding(numbers[0], mutant(seed, numbers[0])[0].name, what)], Counter({"": 1}), 0)
          elif not is_late:  # even if each image alone does not end it
            yield Tried([Finding(numbers[0], "a batch", f"their process dies: exit code {code}")], Counter(), 0)
          again += [[number] for number in numbers if len(numbers) > 1]
  finally:
    for worker in workers:
      worker.stop()


def _work(model: str, seed: int, pipe: Connection) -> None:
  """A process: takes batches of numbers through all doors."""
  os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libjpeg's warnings
  from tools.zoo.doors import Doors
  from tools.zoo.table import VARIANTS

  doors = Doors(model)
  whole = [variant.made.data for variant in VARIANTS if variant.reason is None][:BATCH]
  _try(doors, [(number, "", data) for number, data in enumerate(whole)])  # so that all is loaded
  pages = int(Path("/proc/self/statm").read_text().split()[0])
  resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
  base = _peak()
  pipe.send(Tried([], Counter(), 0))
  while True:
    try:
      numbers = pipe.recv()
    except EOFError:
      return
    images = [(number, variant.name, data) for number in numbers for variant, data in [mutant(seed, number)]]
    findings, reasons = _try(doors, images)
    pipe.send(Tried(findings, reasons, _peak() - base))


def _peak() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _try(doors: object, images: list[tuple[int, str, bytes]]) -> tuple[list[Finding], Counter[str]]:
  from tools.zoo.check import fuzzed_differences

  findings, reasons = [], Counter[str]()
  for (number, name, _), (reason, wrong) in zip(
    images, fuzzed_differences(doors, [data for *_, data in images]), strict=True
  ):
    reasons[reason] += 1
    findings += [Finding(number, name, what) for what in wrong]
  return findings, reasons


if __name__ == "__main__":
  sys.exit(main())
