"""The pages that lead a new user through a task: what they show, in the order in which it stands there."""

import gzip
import re
import shlex

import numpy as np
import pytest

from beam_retrain.pipelines.cli import main
from beam_retrain.transforms.core.images.idx import encode_idx
from tests.helpers import ROOT


def letters(line: str) -> str:
  """A line without its figures."""
  return "".join(re.findall("[a-z]+", line))


def follow(page: str, capfd: pytest.CaptureFixture) -> None:
  """Runs a page's Python and commands; each line that it shows must be printed."""
  text = (ROOT / "docs" / page).read_text()
  blocks = re.findall(r"```(python|console)\n(.*?)```", text, re.DOTALL)
  assert len(blocks) >= 3
  for language, block in blocks:
    if language == "python":
      exec(compile(block, page, "exec"), {"__name__": "__main__"})
      continue
    command, shown = block.removeprefix("$ ").split("\n", 1)
    capfd.readouterr()
    assert main(shlex.split(command)[1:]) == 0, command
    printed = {letters(line) for line in capfd.readouterr().out.splitlines()}
    assert [line for line in shown.splitlines() if line != "..." and letters(line) not in printed] == [], command


def test_photos(tmp_path, monkeypatch, capfd):
  monkeypatch.chdir(tmp_path)
  follow("photos.md", capfd)
  assert (tmp_path / "work" / "evaluate" / "report.html").exists()


def test_mnist(mnist_folder, tmp_path, monkeypatch, capfd):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "mnist").mkdir()
  for path in sorted(mnist_folder.glob("*-ubyte.gz")):
    header, shape = (16, (-1, 28, 28)) if "images" in path.name else (8, (-1,))
    items = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header).reshape(shape)
    (tmp_path / "mnist" / path.name).write_bytes(gzip.compress(encode_idx(items[:1500])))
  follow("mnist.md", capfd)
