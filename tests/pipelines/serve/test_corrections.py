import multiprocessing
import os
import signal
import time

import pytest

from beam_retrain.pipelines.serve.corrections import ConflictError, Corrections
from beam_retrain.transforms.core.corrections import COLUMNS, Correction
from beam_retrain.transforms.core.errors import InputError
from tests.helpers import read_csv

SHA = "0123456789abcdef" * 4
KEPT = Correction("cat", "cat", "keep")
HOSTILE = ['=cmd|"/c calc"!A1', "a,b\nc\r\nd", "\r", "'", "\u202e.png", "a\\r"]


def test_what_is_written_is_read_again_in_its_order(tmp_path):
  file = Corrections(str(tmp_path / "corrections.csv"))
  assert file.read() == {}
  images = {(f"{text}.png", SHA): Correction(text, "", "drop", text) for text in HOSTILE}
  for image, correction in images.items():
    file.change({image: None}, {image: correction})
  assert file.read() == images
  assert list(file.read()) == list(images)
  assert read_csv(tmp_path / "corrections.csv")[0] == COLUMNS


def test_no_cell_is_a_formula(tmp_path):
  Corrections(str(tmp_path / "c.csv")).change({}, {("=1", SHA): Correction("@a", "+b", "relabel", "-c")})
  assert read_csv(tmp_path / "c.csv")[1] == ["'=1", SHA, "'@a", "'+b", "relabel", "'-c"]


def test_a_decision_that_was_not_seen_is_not_replaced(tmp_path):
  image, other = ("a.png", SHA), ("b.png", SHA)
  ours, theirs = (Corrections(str(tmp_path / "c.csv")) for _ in range(2))
  theirs.change({image: None}, {image: KEPT})
  with pytest.raises(ConflictError):
    ours.change({image: None}, {image: Correction("cat", "", "drop")})
  ours.change({other: None}, {other: KEPT})
  ours.change({image: KEPT}, {image: None})
  assert theirs.read() == {other: KEPT}


@pytest.mark.parametrize(
  "text", ["nonsense\n", ",".join(COLUMNS) + f"\na,{SHA},x,x,burn,\n", ",".join(COLUMNS) + "\na,b\n", "\xff"]
)
def test_another_file_is_not_overwritten(tmp_path, text):
  path = tmp_path / "c.csv"
  path.write_bytes(text.encode("latin-1"))
  with pytest.raises(InputError, match=r"c\.csv"):
    Corrections(str(path)).change({}, {("a", SHA): KEPT})
  assert path.read_bytes() == text.encode("latin-1")


def _write(path: str, name: str, count: int) -> None:
  for number in range(count):
    Corrections(path).change({}, {(f"{name}-{number}", SHA): KEPT})


def test_processes_at_once_lose_nothing_and_a_killed_one_leaves_a_whole_file(tmp_path):
  path = str(tmp_path / "c.csv")
  context = multiprocessing.get_context("fork")
  writers = [context.Process(target=_write, args=(path, name, 25), daemon=True) for name in "ab"]
  victim = context.Process(target=_write, args=(path, "killed", 100_000), daemon=True)
  for process in (victim, *writers):
    process.start()
  while not any(name == "killed-3" for name, _ in Corrections(path).read()):
    time.sleep(0.01)
  os.kill(victim.pid, signal.SIGKILL)
  for process in (victim, *writers):
    process.join()
  names = [name for name, _ in Corrections(path).read()]
  assert [name for name in names if name.startswith("a")] == [f"a-{number}" for number in range(25)]
  assert [name for name in names if name.startswith("b")] == [f"b-{number}" for number in range(25)]
  killed = [name for name in names if name.startswith("killed")]
  assert killed == [f"killed-{number}" for number in range(len(killed))]
