"""Label errors and near-duplicates among drawn vectors whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from beam_retrain.transforms.core.metrics import label_errors
from beam_retrain.transforms.core.metrics.label_errors import Components, judge, near_duplicates, out_of_fold

NUMBER = 1200


def _draw(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Returns components, true classes, labels of which 24 are wrong, and image digests."""
  rng = np.random.default_rng(seed)
  classes = rng.integers(4, size=NUMBER)
  vectors = (rng.normal(0, 3, (4, 32))[classes] + rng.normal(0, 1, (NUMBER, 32))).astype(np.float32)
  labels = classes.copy()
  wrong = rng.choice(NUMBER, 24, replace=False)
  labels[wrong] = (classes[wrong] + 1 + rng.integers(3, size=24)) % 4
  return Components(vectors).project(vectors), classes, labels, rng.integers(1 << 62, size=NUMBER).astype(np.uint64)


def test_wrong_labels_come_first_with_the_right_one_suggested() -> None:
  components, classes, labels, images = _draw()
  judged = judge(components, labels, images)
  wrong = np.flatnonzero(labels != classes)
  assert len(judged.rows) >= 20
  assert set(judged.rows.tolist()) <= set(wrong.tolist())
  assert (judged.suggested[wrong] == classes[wrong]).all()
  assert judged.confidence[wrong].max() < 0.5 < np.median(judged.confidence)
  assert judged.agreeing[wrong].max() < 0.5
  assert (judged.suggested[judged.rows] != labels[judged.rows]).all()


def test_copies_are_in_one_fold_so_that_none_vouches_for_another() -> None:
  components, classes, labels, images = _draw()
  row = int(np.flatnonzero(labels != classes)[0])
  copies = np.append(np.arange(NUMBER), [row] * 40)
  confidence, _, is_off = out_of_fold(components[copies], labels[copies], images[copies])
  assert is_off[row]
  assert confidence[row] < 0.5
  judged = judge(components[copies], labels[copies], images[copies])
  assert judged.agreeing[row] < 0.5
  assert images[copies][judged.nearest[row]] != images[row]


def test_a_label_of_few_images_is_not_judged() -> None:
  components, _, labels, images = _draw()
  labels[:9] = 4
  assert not set(range(9)) & set(judge(components, labels, images).rows.tolist())
  alone = judge(components, np.zeros(NUMBER, int), images)
  assert len(alone.rows) == 0


@pytest.mark.parametrize("copies", [False, True])
def test_no_label_is_mistaken_for_one_that_the_heads_do_not_know(copies: bool) -> None:
  components, classes, _, images = _draw()
  classes[:20] = 4
  rows = np.arange(NUMBER) if copies else np.arange(19, NUMBER)
  images[:20] = images[0]
  judged = judge(components[rows], classes[rows], images[rows])
  assert not (judged.suggested[judged.rows] == 4).any()


@pytest.mark.parametrize("number", [8, 12, 20, 64])
def test_of_a_handful_of_images_only_the_near_duplicates_are_said_to_be_some(number: int) -> None:
  rng = np.random.default_rng(0)
  vectors = np.abs(rng.normal(size=(number, 64))).astype(np.float32)
  vectors[1] = vectors[0] + 0.01 * rng.normal(size=64)
  components = Components(vectors).project(vectors)
  judged = judge(components, np.arange(number) % 2, np.arange(number).astype(np.uint64))
  assert set(judged.alike.tolist()) == {0, 1}


@pytest.mark.parametrize("number", [2, 3, 9])
def test_a_handful_of_images_has_no_errors(number: int) -> None:
  components, _, labels, images = _draw()
  assert len(judge(components[:number], labels[:number], images[:number]).rows) == 0


def test_vectors_that_are_all_the_same_are_judged_without_warnings() -> None:
  vectors = np.ones((100, 8), np.float32)
  judged = judge(Components(vectors).project(vectors), np.arange(100) % 2, np.arange(100).astype(np.uint64))
  assert np.isfinite(judged.confidence).all()


def test_much_nearer_than_usual_is_a_near_duplicate() -> None:
  components, _, labels, images = _draw()
  twins = np.vstack([components, components[:3] + 0.01])
  judged = judge(twins, np.append(labels, labels[:3]), np.append(images, images[:3] + np.uint64(1)))
  assert set(judged.alike.tolist()) == {0, 1, 2, NUMBER, NUMBER + 1, NUMBER + 2}
  assert judged.nearest[:3].tolist() == [NUMBER, NUMBER + 1, NUMBER + 2]
  assert near_duplicates(np.array([-1]), np.array([-1.0])).tolist() == []


def test_cells_find_nearly_all_nearest_images(monkeypatch: pytest.MonkeyPatch) -> None:
  components, _, labels, images = _draw()
  components = np.vstack([components, components[:40] + 0.01])
  labels, images = np.append(labels, labels[:40]), np.append(images, images[:40] + np.uint64(1))
  whole = judge(components, labels, images)
  monkeypatch.setattr(label_errors, "_CELL", 200)
  monkeypatch.setattr(label_errors, "_MOST", 800)
  parts = judge(components, labels, images)
  assert (parts.nearest == whole.nearest).mean() > 0.5  # there is no more structure than the classes
  assert (parts.cosine <= whole.cosine + 1e-6).all()
  assert len(whole.alike) == 80
  assert set(parts.alike.tolist()) == set(whole.alike.tolist())
  same = np.ones((900, 8), np.float32)
  asked = [cell for cell, _ in label_errors._cells(same, np.arange(900), np.arange(900))]
  assert sorted(np.concatenate(asked).tolist()) == list(range(900))
