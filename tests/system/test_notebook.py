"""The notebook of docs/: its cells, run one after the other as Jupyter does."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from beam_retrain.pipelines.cli import main
from tests.helpers import ROOT

_NOTEBOOK = ROOT / "docs" / "photos.ipynb"


def _cells() -> list[dict]:
  notebook = json.loads(_NOTEBOOK.read_text(encoding="utf-8"))
  assert notebook["nbformat"] == 4
  return notebook["cells"]


def _lay_out_own_photos(making: str) -> None:
  """Runs the cell that makes photos, and gives them the names that a camera does."""
  exec(compile(making, "<a cell>", "exec"), {})
  for number, path in enumerate(sorted(Path("photos").glob("*/*.jpg"))):
    path.rename(path.with_name("broken.jpg" if path.name == "broken.jpg" else f"IMG_{number:04}.JPG"))


def test_the_cells_make_a_classifier_of_own_photos_and_show_its_mistakes(tmp_path, monkeypatch):
  making, *code = ["".join(cell["source"]) for cell in _cells() if cell["cell_type"] == "code"]
  monkeypatch.chdir(tmp_path)
  _lay_out_own_photos(making)
  mpl.use("Agg")
  shown = []
  monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()[-1]))
  names: dict[str, object] = {"__name__": "__main__"}
  for cell in code:
    if cell.startswith("!{beam_retrain} "):
      assert main(shlex.split(cell)[1:]) == 0, cell
    else:
      exec(compile(cell, "<a cell>", "exec"), names)
  plt.close("all")
  assert len(shown) == 4
  found = names["found"]
  assert found.accuracy > 0.8
  assert [(one.image, one.fault[:9]) for one in found.bad] == [("sky/broken.jpg", "TRUNCATED")]
  assert len(names["doubtful"]) == 8
  assert {path.name for path in tmp_path.iterdir()} == {"photos", "work"}


def test_it_is_short_and_its_outputs_are_small():
  assert len(_cells()) <= 20
  assert _NOTEBOOK.stat().st_size < 400_000
  outputs = [json.dumps(output) for cell in _cells() for output in cell.get("outputs", ())]
  assert sum("image/jpeg" in output for output in outputs) == 4
  assert not [output for output in outputs if "/home/" in output or "/tmp/" in output or "Traceback" in output]
