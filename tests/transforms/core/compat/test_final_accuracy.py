"""The final test as retrain.py made it."""

from collections import Counter

import pytest

from beam_retrain.transforms.core.compat.final_accuracy import Judged, final_accuracy, judge
from beam_retrain.transforms.core.errors import InputError

_HEADER = "file_name,actual_digit,predicted_digit,confidence,prediction_accuracy,Execution time,sha256\n"


@pytest.fixture
def predictions(tmp_path) -> str:
  """90 images of `a`, of which 30 are taken for `b`, and 10 of `b`, all right."""
  path = tmp_path / "predictions.csv"
  lines = [
    f"{'a' if n < 90 else 'b'}/{n}.jpg,{'a' if n < 90 else 'b'},{'a' if 30 <= n < 90 else 'b'},50,x,now,0"
    for n in range(100)
  ]
  path.write_text(_HEADER + "\n".join(lines) + "\n")
  return str(path)


def test_all_images_once(predictions):
  assert final_accuracy(predictions, -1, seed=0) == (0.7, 100)
  found = list(judge(predictions, -1, seed=0))
  assert found[0] == Judged("a/0.jpg", "a", "b", 1)
  assert [image.key.split("/")[1] for image in found] == [f"{number}.jpg" for number in range(100)]


def test_a_draw_takes_each_label_as_often_and_images_more_than_once(predictions):
  found = list(judge(predictions, 2000, seed=3))
  assert sum(image.times for image in found) == 2000
  by_label = Counter()
  for image in found:
    by_label[image.actual] += image.times
  assert 900 < by_label["a"] < 1100  # half of 2,000, not nine tenths; the standard deviation is 22
  times = [image.times for image in found if image.actual == "b"]
  assert len(times) == 10
  assert min(times) > 60  # 100 on average, standard deviation 10
  accuracy, total = final_accuracy(predictions, 2000, seed=3)
  assert total == 2000
  assert accuracy == sum(image.times for image in found if image.actual == image.predicted) / 2000
  assert 0.78 < accuracy < 0.88  # 5/6


def test_a_draw_is_the_same_for_the_same_seed(predictions):
  assert list(judge(predictions, 20, seed=1)) == list(judge(predictions, 20, seed=1))
  assert list(judge(predictions, 20, seed=1)) != list(judge(predictions, 20, seed=2))


def test_names_are_as_they_were_before_they_went_into_a_csv(tmp_path):
  path = tmp_path / "predictions.csv"
  path.write_text(_HEADER + "'=x/1\\r.jpg,'=x,b,50,False,now,0\n" + '"a/2,\n3.jpg",b,b,50,True,now,0\n')
  assert list(judge(str(path), -1, 0)) == [Judged("=x/1\r.jpg", "=x", "b", 1), Judged("a/2,\n3.jpg", "b", "b", 1)]


def test_a_damaged_file_is_named(tmp_path):
  path = tmp_path / "predictions.csv"
  path.write_text(_HEADER + "a/1.jpg,a\n")
  with pytest.raises(InputError, match=r"predictions\.csv: line 2 has 2 cells instead of 7"):
    final_accuracy(str(path), 5, seed=0)
