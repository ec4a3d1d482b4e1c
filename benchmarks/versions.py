"""Everyday commands of this version and of 0.4, whole processes in turn.

  python -m benchmarks.versions --data DIR --before CHECKOUT [--trunk_weights FILE] [--json FILE]

DIR has MNIST's four IDX files, CHECKOUT is version 0.4 with its environment in `.venv` (`benchmarks.before` makes it).
Each version has a cache of its own, which a first run of `run` has filled. The nights are over MNIST's 10,000 testing
images as JPGs, by the head of `run --data digits`; in the last one a hundredth is new. Disk counts hard links once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.before import THIS, Version, at
from benchmarks.bench_inputs import link_some
from benchmarks.commands import table, timed
from benchmarks.processes import Process, run_process

_LOADED = 7_000
_PHOTOS = 300
_NEW = 100


class Claim(NamedTuple):
  """What this version's row must show: at most `bound`, of the seconds of the row `of`; None: its peak in megabytes."""

  text: str
  bound: float
  of: str | None = None


class Trial(NamedTuple):
  """A command of every version.

  Attributes:
    name: of its row.
    arguments: its command line; `{own}` is the folder of the version.
    rounds: how often, in turn; the medians count.
    makes: a folder in `{own}` that is deleted before each round; empty: none.
    claim: of this version's row.
  """

  name: str
  arguments: Sequence[str]
  rounds: int = 1
  makes: str = ""
  claim: Claim | None = None


class Session:
  """Versions in turn, each in a folder and with a cache of its own."""

  def __init__(self, versions: Sequence[Version], work: Path):
    self.versions, self.work = versions, work
    self.seconds: dict[tuple[str, str], float] = {}
    self.rows: list[dict[str, Any]] = []
    self._logs = 0

  def own(self, version: Version) -> Path:
    return self.work / version.name.replace(" ", "-")

  def run(self, version: Version, trial: Trial) -> Process:
    own = self.own(version)
    if trial.makes:
      shutil.rmtree(own / trial.makes, ignore_errors=True)
    self._logs += 1
    environ = {"BEAM_RETRAIN_CACHE_DIR": str(own / "cache"), "XDG_CACHE_HOME": str(own / "cache")}
    command = [*version.command, *(argument.format(own=own) for argument in trial.arguments)]
    return run_process(command, self.work / "logs" / f"{self._logs}.txt", environ, root=version.root)

  def measure(self, trial: Trial) -> None:
    """Runs a trial and adds a row of each version."""
    print(f"{trial.name} ...", flush=True)
    runs: dict[str, list[Process]] = {version.name: [] for version in self.versions}
    for number in range(trial.rounds):
      for version in self.versions if number % 2 == 0 else reversed(self.versions):
        runs[version.name].append(self.run(version, trial))
    for name, of in runs.items():
      self.seconds[trial.name, name] = statistics.median(run.seconds for run in of)
    for version in self.versions:
      of, seconds = runs[version.name], self.seconds[trial.name, version.name]
      cpu, peak = statistics.median(run.cpu_seconds for run in of), max(run.peak_mb for run in of)
      note = f"{cpu:.1f} s of CPU, peak {peak:,.0f} MB"
      claim, of_first = trial.claim, None
      if claim and claim.of:
        of_first = seconds / self.seconds[claim.of, version.name]
        note += f"; {of_first:.2f} of the {claim.of}"
      self.add(trial.name, version, seconds, note)
      if version is THIS and claim:
        self.rows[-1]["claim"] = [claim.text, of_first or peak, claim.bound]

  def add(self, name: str, version: Version, seconds: float, note: str) -> None:
    """Adds a row; beside it what it is of the older version's."""
    before = self.seconds.get((name, self.versions[-1].name))
    ratio = seconds / before if before and version is THIS and len(self.versions) > 1 else None
    against = self.versions[-1].name if ratio else None
    row = {"name": f"{name}, {version.name}", "seconds": seconds, "ratio": ratio, "against": against, "note": note}
    self.rows.append(row)
    print(f"{row['name']}: {seconds:.2f} s{f', {ratio:.2f} of {against}' if ratio else ''}; {note}", flush=True)


def measure_all(session: Session, data: Path, weights: Path | None) -> None:
  """Runs all trials.

  Args:
    data: folder of the four IDX files.
    weights: of Inception v3, for what its folders take on disk; None: that is left out.
  """
  images = session.work / "images"
  converted = session.work / "convert"
  timed("convert", f"--input={data}", f"--output={converted}", "--formats=jpg")
  digits = Trial("run --data digits", ("run", "--data=digits", "--output={own}/digits"), 2, "digits")
  for version in session.versions:
    session.run(version, digits)
  session.measure(digits)
  one = next((converted / "testing" / "7").iterdir())
  session.measure(Trial("predict one image", ("predict", "--model={own}/digits/train", str(one)), 3))
  session.measure(Trial("evaluate --help", ("evaluate", "--help"), 3))
  link_some(converted / "training", session.work / "loaded", _LOADED)
  bundled = ("--input", str(session.work / "loaded"), "--trunk=bundled", "--output={own}/loaded")
  session.measure(
    Trial(
      f"bottlenecks of {_LOADED:,} images, bundled trunk",
      ("bottlenecks", *bundled),
      makes="loaded",
      claim=Claim(f"bottlenecks of {_LOADED:,} images, bundled trunk: peak memory, MB", 700),
    )
  )
  _nights(session, converted / "testing", images)
  if weights:
    _disk(session, converted / "testing", weights)


def _nights(session: Session, testing: Path, images: Path) -> None:
  for label in sorted(testing.iterdir()):
    (images / label.name).mkdir(parents=True)
    for image in label.iterdir():
      os.link(image, images / label.name / image.name)
  held_back = sorted(images.rglob("*.jpg"))[:: 10_000 // _NEW]
  for image in held_back:
    image.unlink()
  night = ("reevaluate", "--model={own}/digits/train", f"--input={images}", "--history={own}/nights")
  first = "first night"
  session.measure(Trial(first, (*night, "--date=2026-01-01")))
  same = Claim("an unchanged night, of the first", 0.2, first)
  session.measure(Trial("unchanged night", (*night, "--date=2026-01-02"), claim=same))
  for image in held_back:
    os.link(testing / image.relative_to(images), image)
  new = Claim("a night with 1 % new images, of the first", 0.3, first)
  session.measure(Trial("night with 1 % new images", (*night, "--date=2026-01-03"), claim=new))


def _disk(session: Session, testing: Path, weights: Path) -> None:
  photos = session.work / "photos"
  link_some(testing, photos, _PHOTOS)
  trunk = ("--trunk=keras:InceptionV3", f"--trunk_weights={weights}", "--precision=bfloat16")
  stages = (
    Trial("", ("bottlenecks", f"--input={photos}", *trunk, "--output={own}/few")),
    Trial("", ("train", "--input={own}/few", "--output={own}/head")),
  )
  for version in session.versions:
    seconds = sum(session.run(version, stage).seconds for stage in stages)
    sizes = [disk_mb([session.own(version) / name]) for name in ("few", "head")]
    both = disk_mb([session.own(version) / name for name in ("few", "head")])
    note = f"on disk {sizes[0]:.0f} MB of bottlenecks, {sizes[1]:.0f} MB of the model, {both:.0f} MB both"
    session.add(f"bottlenecks and train, {_PHOTOS} images, Inception v3", version, seconds, note)
    if version is THIS:
      session.rows[-1]["claim"] = [f"{_PHOTOS} images, Inception v3: bottlenecks and model on disk, MB", both, 110]


def disk_mb(folders: Sequence[Path]) -> float:
  """Returns what folders take on disk, in megabytes; a file that several names lead to counts once."""
  found = {}
  for folder in folders:
    for path in folder.rglob("*"):
      status = path.lstat()
      found[status.st_dev, status.st_ino] = status.st_blocks * 512
  return sum(found.values()) / 1e6


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, type=Path, help="folder of MNIST's four IDX files")
  parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="version 0.4 (default: this version alone)")
  parser.add_argument("--trunk_weights", type=Path, metavar="FILE", help="Keras's Inception v3 without its top")
  parser.add_argument("--work", type=Path, metavar="DIR", help="where to work (default: a temporary folder)")
  parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
  flags = parser.parse_args()
  versions = [THIS, at(flags.before.resolve())] if flags.before and flags.before.exists() else [THIS]
  with tempfile.TemporaryDirectory(prefix="versions-", dir=flags.work) as work:
    session = Session(versions, Path(work))
    measure_all(session, flags.data.resolve(), flags.trunk_weights and flags.trunk_weights.resolve())
  head = ("what", "seconds", "of 0.4", "more")
  lines = [
    (r["name"], f"{r['seconds']:.2f}", f"{r['ratio']:.2f}" if r["ratio"] else "-", r["note"]) for r in session.rows
  ]
  print(f"\n{table([head, *lines])}")
  if flags.json:
    flags.json.write_text(json.dumps(session.rows, indent=1))


if __name__ == "__main__":
  main()
