"""Temporary files of a command lie in a folder that is named after its output."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.system.scratch import outside, own_temporary_files

_CHILD = [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]


def _of_child() -> str:
  return subprocess.run(_CHILD, capture_output=True, text=True, check=True).stdout.strip()


def test_temporary_files_of_a_process_and_its_children_go_into_the_scratch_folder(tmp_path, monkeypatch):
  monkeypatch.setattr(tempfile, "tempdir", None)
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  with own_temporary_files(str(tmp_path / "output")):
    inside = tempfile.gettempdir()
    assert os.path.dirname(inside) == str(tmp_path)
    assert _of_child() == inside
    with outside():
      assert tempfile.gettempdir() == str(tmp_path) == os.environ["TMPDIR"]
    assert tempfile.gettempdir() == inside == os.environ["TMPDIR"]
  assert tempfile.gettempdir() == str(tmp_path) == os.environ["TMPDIR"]
  assert os.listdir(tmp_path) == []


def test_a_path_that_is_not_utf_8_is_told(tmp_path):
  path = os.path.join(tmp_path, os.fsdecode(b"o\xe9"), "out")
  with pytest.raises(InputError, match="its path is not UTF-8: rename the folder, or give"), own_temporary_files(path):
    pass
