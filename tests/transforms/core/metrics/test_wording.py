"""An accuracy is as exact as its interval is worth, and never rounded to perfection."""

import pytest

from beam_retrain.transforms.core.metrics.wording import accuracy_line, too_few


@pytest.mark.parametrize(
  ("correct", "total", "line"),
  [
    (22, 26, "Accuracy 84.6 % (22 of 26; 95 % interval 66 to 94)"),
    (292, 296, "Accuracy 98.6 % (292 of 296; 95 % interval 96.6 to 99.5)"),
    (9_904, 10_000, "Accuracy 99.04 % (9,904 of 10,000; 95 % interval 98.8 to 99.2)"),
    (99_999, 100_000, "Accuracy 99.999 % (99,999 of 100,000; 95 % interval 100.0 to 100.0)"),
    (26, 26, "Accuracy 100.0 % (26 of 26; 95 % interval 87 to 100)"),
    (0, 0, "Accuracy unknown: no image could be evaluated"),
  ],
)
def test_accuracy_line(correct, total, line):
  assert accuracy_line(correct, total) == line
  if total:
    assert accuracy_line(correct, total, " of the testing images") == line.replace(" %", " % of the testing images", 1)


@pytest.mark.parametrize(
  ("total", "percentage", "advice"),
  [
    (100, 10, ""),
    (0, 10, ""),
    (60, 10, "set more aside with --testing_percentage 20 of `beam-retrain run` or `bottlenecks`"),
    (26, 10, "set more aside with --testing_percentage 30 of"),
    (26, 30, "add images, of which more are then for testing"),
    (26, None, "add images, of which more are then for testing"),
  ],
)
def test_too_few_testing_images_have_the_flag_that_gives_more(total, percentage, advice):
  told = too_few(total, percentage)
  assert advice in told
  assert bool(told) == bool(advice)
