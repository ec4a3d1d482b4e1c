"""The reference is what the docstrings of the public names have."""

from __future__ import annotations

import inspect

import pytest

import beam_retrain
from tools.reference import PAGE, page


def test_the_page_is_up_to_date():
  assert PAGE.read_text() == page(), "run python -m tools.reference"


@pytest.mark.parametrize("name", beam_retrain.__all__)
def test_each_name_has_a_signature_or_is_an_error_and_names_its_arguments(name):
  found = getattr(beam_retrain, name)
  _, _, text = page().partition(f"\n## {name}\n")
  text = text.split("\n## ")[0]
  if name != "InputError":
    assert f"```py\n{name}(" in text
    named = set(inspect.signature(found).parameters) - {"label", "labels", "height", "width", "cut", "images"}
    assert [argument for argument in named if f"`{argument}" not in text] == []
