"""Every variant of an image through every door of the product, and the page that says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.zoo import page
from tools.zoo.check import check, differences
from tools.zoo.doors import Doors, Seen
from tools.zoo.mutate import mutant
from tools.zoo.table import VARIANTS

_PIXELS = np.full((4, 4, 3), 100, np.float32)
_SEEN = Seen(pixels=_PIXELS, scores=np.array([0.5, 0.5]))


def test_every_variant_is_the_same_through_every_door(bundled_digits: Path) -> None:
  faults = check(Doors(str(bundled_digits / "model")), VARIANTS)
  assert len(faults) == len(VARIANTS) >= 120, "two variants have one name"
  assert {name: found for name, found in faults.items() if found} == {}


def test_the_page_is_what_the_table_writes() -> None:
  assert page.PAGE.read_text() == page.page(), "run `python -m tools.zoo`"


@pytest.mark.parametrize(
  ("other", "found"),
  [
    (_SEEN, []),
    (_SEEN._replace(pixels=_PIXELS + 0.01), ["predict: pixels differ by 0.01"]),
    (_SEEN._replace(scores=np.array([0.7, 0.3])), ["predict: scores differ by 0.2"]),
    (Seen(reason="EMPTY", detail="0 bytes"), ["predict: EMPTY 0 bytes; batch: shows it "]),
  ],
)
def test_what_two_doors_disagree_about_is_found(other: Seen, found: list[str]) -> None:
  assert list(differences(_SEEN, _SEEN, other)) == found


def test_a_damaged_image_is_made_from_its_number_alone() -> None:
  made = [mutant(1, number) for number in range(20)]
  assert made == [mutant(1, number) for number in range(20)]
  assert len({data for _, data in made}) > 15
