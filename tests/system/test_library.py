"""The public names of `beam_retrain`."""

import importlib

import pytest

import beam_retrain
from tests.helpers import python


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
