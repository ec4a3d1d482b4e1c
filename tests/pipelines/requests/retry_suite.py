"""Images some of which are bad, and runs to compare a retry of them with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from beam_retrain.pipelines import bottlenecks
from tests.helpers import file_contents, read_json


@pytest.fixture(scope="session")
def trunk(made: Any) -> str:
  return f"--trunk={made.data.parent / 'trunk'}"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory, draw_digits: Callable) -> Path:
  folder = tmp_path_factory.mktemp("drawn")
  draw_digits(folder / "all", 300, lambda number, label: f"{label}/{number}.png")
  for label in ("zebra", "ant", "mule"):
    shutil.copytree(folder / "all" / label, folder / "data" / label)
  return folder / "data"


class Broken(NamedTuple):
  """Images some of which are bad, and what `bottlenecks` made of them.

  Attributes:
    data: class folders.
    sound: the bytes of the bad ones when they are repaired, by key.
    output: where `bottlenecks` ended with exit code 3.
    flags: of that run.
  """

  data: Path
  sound: dict[str, bytes]
  output: Path
  flags: tuple[str, ...]

  def repair(self, *keys: str) -> None:
    for key in keys or self.sound:
      path = self.data / key
      if path.is_symlink():
        path.unlink()
      path.write_bytes(self.sound[key])


BAD = 6


def spoil(data: Path) -> dict[str, bytes]:
  """Makes six images bad in as many ways; the last is not there: a link that leads nowhere."""
  keys = [path.relative_to(data).as_posix() for path in sorted(data.rglob("*.png"))][::12][:BAD]
  sound = {key: (data / key).read_bytes() for key in keys}
  cut, empty, text, header, pixels, gone = (data / key for key in keys)
  cut.write_bytes(sound[keys[0]][:-30])
  empty.write_bytes(b"")
  text.write_bytes(b"no image")
  header.write_bytes(sound[keys[3]][:20])
  damaged = bytearray(sound[keys[4]])
  damaged[-40:-20] = bytes(20)
  pixels.write_bytes(damaged)
  gone.unlink()
  gone.symlink_to(data / "nowhere.png")
  return sound


PERCENTAGES = ("--testing_percentage=30", "--validation_percentage=20")


def break_images(drawn: Path, folder: Path, *flags: str) -> Broken:
  data = Path(shutil.copytree(drawn, folder / "data"))
  sound = spoil(data)
  assert run(data, folder / "bad", *flags) == 3
  return Broken(data, sound, folder / "bad", flags)


def break_and_accept(drawn: Path, folder: Path, trunk: str) -> Broken:
  data = Path(shutil.copytree(drawn, folder / "data"))
  sound = spoil(data)
  assert run(data, folder / "bad", trunk, *PERCENTAGES, "--max_bad_fraction=0.5") == 0
  return Broken(data, sound, folder / "bad", (trunk, *PERCENTAGES))


@pytest.fixture(scope="module")
def kept_broken(drawn: Path, trunk: str, tmp_path_factory: pytest.TempPathFactory) -> Broken:
  """For tests that change nothing of it."""
  return break_images(drawn, tmp_path_factory.mktemp("broken"), trunk, *PERCENTAGES)


@pytest.fixture
def broken(kept_broken: Broken, tmp_path: Path) -> Iterator[Broken]:
  """For tests that change its images, which are bad again afterwards; its output is the one of `kept_broken`."""
  before = shutil.copytree(kept_broken.data, tmp_path / "before", symlinks=True)
  yield kept_broken
  shutil.rmtree(kept_broken.data)
  shutil.copytree(before, kept_broken.data, symlinks=True)


@pytest.fixture(scope="module")
def cold(kept_broken: Broken, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """What `bottlenecks` writes for the images of `kept_broken` when all of them are repaired."""
  folder = tmp_path_factory.mktemp("cold")
  before = shutil.copytree(kept_broken.data, folder / "before", symlinks=True)
  kept_broken.repair()
  assert run(kept_broken.data, folder / "output", *kept_broken.flags) == 0
  shutil.rmtree(kept_broken.data)
  shutil.copytree(before, kept_broken.data, symlinks=True)
  return folder / "output"


def run(data: Path | str, output: Path, *flags: str) -> int:
  return bottlenecks.run([f"--input={data}", f"--output={output}", *flags])


def retry(folder: Path, output: Path, *flags: str) -> int:
  return bottlenecks.run([f"--retry_from={folder}", f"--output={output}", *flags])


def check_same_as_cold(output: Path, cold: Path, computed: int) -> None:
  """Compares with a run that reused nothing; `computed`: how often the trunk ran."""
  records = {name: data for name, data in file_contents(output / "records").items() if name.endswith(".tfrecord")}
  assert records == {name: data for name, data in file_contents(cold / "records").items() if name.endswith(".tfrecord")}
  for name in ("quarantine.csv", "labels.txt", "schema.pbtxt"):
    assert (output / name).read_bytes() == (cold / name).read_bytes()
  assert read_json(output / "info.json")["settings"] == read_json(cold / "info.json")["settings"]
  assert read_json(output / "info.json")["trunk"] == read_json(cold / "info.json")["trunk"]
  stats = read_json(output / "stats.json")
  assert {**stats, "bottlenecks": 0} == {**read_json(cold / "stats.json"), "bottlenecks": 0}
  assert stats["bottlenecks"] == {"computed": computed, "reused": stats["outputs"] - computed}


def check_ledgers(before: Path, after: Path, repaired: int) -> None:
  """Both close, over the same inputs."""
  first, second = read_json(before / "stats.json"), read_json(after / "stats.json")
  for stats in (first, second):
    assert stats["inputs"] == stats["outputs"] + stats["quarantined"]
  assert {split: totals["inputs"] for split, totals in first["splits"].items()} == {
    split: totals["inputs"] for split, totals in second["splits"].items()
  }
  assert first["quarantined"] - second["quarantined"] == repaired == second["outputs"] - first["outputs"]
