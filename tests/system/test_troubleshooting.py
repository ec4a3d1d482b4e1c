"""Each message of docs/troubleshooting.md is what the command beside it prints."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from beam_retrain.pipelines.cli import main
from tests.helpers import ROOT, noise_image, write

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
_BLOCKS = re.findall(r"```console\n\$ beam-retrain (.*?)```", PAGE, re.DOTALL)
SHOWN = [block.split("\n", 1) for block in _BLOCKS]


def letters(text: str) -> str:
  """A message without its figures: a folder of other labels has others."""
  return "".join(re.findall("[a-z]+", text))


@pytest.fixture(scope="module")
def place(tmp_path_factory, bottlenecks_folder: Path) -> Path:
  """A folder with what the page's commands are given."""
  root = tmp_path_factory.mktemp("troubleshooting")
  flowers = {f"{label}/{i}.png": noise_image(i) for label in ("daisy", "rose") for i in range(40)}
  write(root / "photos" / "flowers", flowers)
  write(root / "flat", {f"{i}.png": noise_image(i) for i in range(3)})
  write(root / "single" / "daisy", {"1.png": noise_image(1)})
  write(root / "few", dict(list(flowers.items())[38:42]))
  bad = {"empty.jpg": b"", "half.png": noise_image(1)[:90], "scan.tiff": noise_image(1, "TIFF")}
  write(root / "mixed", {**flowers, **{f"rose/{name}": content for name, content in bad.items()}})
  (root / "web.csv").write_text("file_name,label\nflat/0.png,a\nhttps://example.com/2.jpg,b\n")
  shutil.copytree(bottlenecks_folder, root / "out" / "damaged")
  (root / "out" / "damaged" / "labels.txt").write_bytes(b"")
  return root


def test_the_page_has_the_errors_that_people_meet():
  assert [int(number) for number in re.findall(r"^\*\*(\d+)\. ", PAGE, re.M)] == list(range(1, 23))
  assert len(SHOWN) == 15


@pytest.mark.parametrize(("command", "message"), SHOWN, ids=[command[:40] for command, _ in SHOWN])
def test_a_command_prints_what_the_page_shows(command, message, place, monkeypatch, capfd):
  monkeypatch.chdir(place)
  assert main(shlex.split(command)) in (2, 3)
  printed = capfd.readouterr().err.replace(f"{place}/", "")
  assert "Traceback" not in printed
  assert letters(message.rstrip().removesuffix("...")) in letters(printed), printed
