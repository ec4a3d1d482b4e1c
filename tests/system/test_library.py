"""The public names of `beam_retrain`."""

import importlib.metadata
import subprocess
import sys

import pytest

import beam_retrain
from tests.helpers import ROOT, python


@pytest.mark.parametrize("name", beam_retrain.__all__)
def test_each_public_name_is_that_of_its_module(name):
  found = getattr(beam_retrain, name)
  assert found is getattr(importlib.import_module(found.__module__), name)
  assert found.__module__.startswith("beam_retrain.")
  assert name in dir(beam_retrain)


def test_another_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
    beam_retrain.Nothing  # noqa: B018


def test_importing_the_package_loads_neither_beam_nor_tensorflow():
  loaded = python(
    "-c", "import beam_retrain, sys; print(sorted({'apache_beam', 'tensorflow', 'numpy'} & {*sys.modules}))"
  )
  assert loaded.stdout == "[]\n"


def test_type_checkers_and_editors_know_each_name(tmp_path):
  script = tmp_path / "uses.py"
  names = beam_retrain.__all__
  lines = [f"from beam_retrain import {', '.join(names)}", *(f"reveal_type({name})" for name in names)]
  script.write_text(
    "\n".join([*lines, 'reveal_type(Model("m").predict(["a.png"], top=2))', 'Model("m", precison="x")'])
  )
  command = [sys.executable, "-m", "mypy", "--config-file=pyproject.toml", "--no-error-summary", str(script)]
  found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  revealed = [line for line in found.stdout.splitlines() if "Revealed type" in line]
  assert len(revealed) == len(names) + 1, found
  assert [line for line in revealed if 'is "Any"' in line] == []
  assert 'is "list[' in revealed[-1]
  assert 'Unexpected keyword argument "precison"' in found.stdout


def test_the_version_is_that_of_the_package():
  assert beam_retrain.__version__ == importlib.metadata.version("beam-retrain")


def test_the_help_begins_with_what_it_is_for():
  assert (beam_retrain.__doc__ or "").index("Model(") < 100


def test_the_command_is_a_module_too():
  found = python("-m", "beam_retrain", "--version")
  assert found.stdout == f"beam-retrain {beam_retrain.__version__}\n"


_IN_A_CELL = """\
import apache_beam as beam
with beam.Pipeline(runner="FnApiRunner") as pipeline:
  _ = pipeline | beam.Create(["a cell"]) | beam.Map(print)
"""


def test_a_pipeline_runs_in_a_cell():
  assert "a cell" in python("-m", "IPython", "--no-banner", "--colors=nocolor", "-c", _IN_A_CELL).stdout
