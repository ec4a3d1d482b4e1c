"""Finds likely wrong labels, and near-duplicates, by bottlenecks.

Each label is judged by a head that was trained on other images: C. G. Northcutt, L. Jiang, I. L. Chuang, "Confident
Learning: Estimating Uncertainty in Dataset Labels", JAIR 70 (2021). Neighbours of other labels add to it. Images are
near-duplicates by the rule of cleanlab: nearer than 0.13 of the median distance of nearest neighbours.

Bottlenecks are held as at most `COMPONENTS` whitened principal components: 256 bytes an image.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from beam_retrain.transforms.core.system.machine import available_cores, one_blas_thread
from beam_retrain.transforms.core.system.prefetch import map_ahead

COMPONENTS = 64
FOLDS = 5
NEIGHBOURS = 10
FEWEST = 10
"""Images of a label below which it is not judged."""

_IMAGES_EACH = 8  # for each component
_FEWEST = 8  # components; along fewer, all images have a near one
_SMOOTH = 1e-3  # of the mean variance, below which a component is noise
_PENALTY = 30.0  # 1 / C of scikit-learn's LogisticRegression, the default of `train`
_TRAINED_SCORES = 1 << 26  # images x labels that a head is trained on at most
_ROWS = 4096
_CELL = 1 << 14  # images that are compared with each other
_MOST = 4 * _CELL
_SPILL = 0.05  # standard deviations by which cells overlap
_NEAR = 0.13
_UNLIKELY = 1e-4


class Components:
  """Whitened principal components, fitted to a sample: float32 [n, D]."""

  def __init__(self, sample: np.ndarray):
    from sklearn.decomposition import PCA

    count = max(len(sample) // _IMAGES_EACH, min(_FEWEST, len(sample) // 2))
    count = min(COMPONENTS, sample.shape[1], count)
    with np.errstate(all="ignore"), one_blas_thread():  # the former of vectors that are all the same
      self._pca = PCA(count, svd_solver="randomized", random_state=0).fit(sample)
    variance = self._pca.explained_variance_
    self._scale = np.sqrt(variance + _SMOOTH * variance.mean() + np.finfo(np.float32).tiny)

  def project(self, vectors: np.ndarray) -> np.ndarray:
    """Projects float32 [n, D] to float32 [n, `COMPONENTS` at most]."""
    return (self._pca.transform(vectors) / self._scale).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Judged:
  """What is known of N labels."""

  rows: np.ndarray  # int [n], likely wrong labels, the most likely first
  score: np.ndarray  # float32 [N], by which they are ordered; the lower, the more likely wrong
  confidence: np.ndarray  # float32 [N], out-of-fold score of the own label, 0..1
  suggested: np.ndarray  # int [N], the class that the out-of-fold scores suggest
  agreeing: np.ndarray  # float32 [N], share of the neighbours with the same label, 0..1
  nearest: np.ndarray  # int [N], the nearest image with other bytes; -1: none
  cosine: np.ndarray  # float32 [N], that to the nearest image, by components
  alike: np.ndarray  # int [m], images that are near-duplicates of their nearest ones, the most alike first


def judge(components: np.ndarray, classes: np.ndarray, images: np.ndarray) -> Judged:
  """Judges labels.

  Args:
    components: float32 [N, K], see `Components`.
    classes: int [N], 0..C-1.
    images: uint64 [N], equal for equal bytes; copies are in one fold, and are no neighbours.
  """
  is_judged = np.bincount(classes)[classes] >= FEWEST
  with one_blas_thread(), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of heads that have not converged: ranks do not need that
    confidence, suggested, is_off = out_of_fold(components, classes, images)
    agreeing, nearest, cosine = _neighbours(components, classes, images)
  # The product of what two witnesses, which err apart from each other, say of a label.
  score = np.log(confidence + _UNLIKELY) + np.log(agreeing + 1 / (2 * NEIGHBOURS))
  wrong = int((is_off & is_judged).sum())
  judged = np.flatnonzero(is_judged)
  rows = judged[np.argsort(score[judged], kind="stable")[:wrong]]
  return Judged(rows, score, confidence, suggested, agreeing, nearest, cosine, near_duplicates(nearest, cosine))


def near_duplicates(nearest: np.ndarray, cosine: np.ndarray) -> np.ndarray:
  """Returns the rows much nearer than usual, the most alike first."""
  has = nearest >= 0
  if not has.any():
    return np.empty(0, np.int64)
  distance = 1 - cosine
  rows = np.flatnonzero(has & (distance <= _NEAR * np.median(distance[has])))
  return rows[np.argsort(distance[rows], kind="stable")]


def out_of_fold(
  components: np.ndarray, classes: np.ndarray, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Scores each image by a head that was trained on other images.

  Returns the score of its label, float32 [N]; the best other class, int [N]; and whether the confident joint counts it
  as that class, bool [N]: its score of it is at least the mean of the images labelled so (equation 2).
  """
  score, number = train_heads(components, classes, images), int(classes.max()) + 1
  confidence, suggested, is_off = np.zeros(len(classes), np.float32), classes.copy(), np.zeros(len(classes), bool)
  for rows, scores in score():
    confidence[rows] = scores[np.arange(len(rows)), classes[rows]]
  counts = np.bincount(classes, minlength=number)
  thresholds = np.bincount(classes, confidence, number) / np.maximum(counts, 1)
  thresholds[(counts < FEWEST) | (thresholds == 0)] = np.inf  # the heads know too little of it, where all would pass
  for rows, scores in score():
    own = np.arange(len(rows)), classes[rows]
    confident = np.where(scores >= thresholds, scores, -1)
    best, of_own = confident.argmax(axis=1), confident[own]
    is_off[rows] = confident.max(axis=1) > of_own
    scores[own] = -1
    suggested[rows] = np.where(is_off[rows], best, scores.argmax(axis=1))
  return confidence, suggested, is_off


Scores = Iterator[tuple[np.ndarray, np.ndarray]]
"""Rows, and their out-of-fold scores: float32 [n, C], 0..1."""


def train_heads(components: np.ndarray, classes: np.ndarray, images: np.ndarray) -> Callable[[], Scores]:
  """Trains a head without each fold; returns what scores all images."""
  folds = (images % np.uint64(FOLDS)).astype(np.int64)
  heads = list(map_ahead(lambda fold: _train(components, classes, folds != fold), range(FOLDS), available_cores()))
  return functools.partial(_score, heads, components, folds, int(classes.max()) + 1)


_Head = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Kernel [K, c], bias [c] and the classes [c] that were trained on."""


def _train(components: np.ndarray, classes: np.ndarray, is_learned: np.ndarray) -> _Head | None:
  """Trains a head; None unless there are two classes."""
  from sklearn.linear_model import LogisticRegression

  rows = np.flatnonzero(is_learned)
  most = max(_ROWS, _TRAINED_SCORES // (int(classes.max()) + 1))
  rows = rows[:: -(-len(rows) // most)] if len(rows) > most else rows
  if len(np.unique(classes[rows])) < 2:
    return None
  head = LogisticRegression(C=1 / _PENALTY, tol=1e-3, max_iter=100).fit(components[rows], classes[rows])
  kernel, bias = head.coef_.T, head.intercept_
  if len(head.classes_) == 2:  # which sklearn describes by one column
    kernel, bias = np.hstack([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
  return kernel.astype(np.float32), bias.astype(np.float32), head.classes_


def _score(heads: Sequence[_Head | None], components: np.ndarray, folds: np.ndarray, number: int) -> Scores:
  for fold, head in enumerate(heads):
    rows = np.flatnonzero(folds == fold)
    if head is None:
      continue
    kernel, bias, known = head
    for start in range(0, len(rows), _ROWS):
      part = rows[start : start + _ROWS]
      logits = components[part] @ kernel + bias
      powers = np.exp(logits - logits.max(axis=1, keepdims=True))
      scores = np.zeros((len(part), number), np.float32)
      scores[:, known] = powers / powers.sum(axis=1, keepdims=True)
      yield part, scores


def _neighbours(
  components: np.ndarray, classes: np.ndarray, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns `agreeing`, `nearest` and `cosine` of `Judged`."""
  from sklearn.neighbors import NearestNeighbors

  unit = components / np.maximum(np.linalg.norm(components, axis=1, keepdims=True), np.finfo(np.float32).tiny)
  agreeing, nearest = np.ones(len(unit), np.float32), np.full(len(unit), -1)
  cosine = np.full(len(unit), -1, np.float32)
  once = np.unique(images, return_index=True)[1]
  for asked, members in _cells(unit, np.arange(len(unit)), once):
    count = min(NEIGHBOURS + 1, len(members))
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(unit[members])
    found = members[search.kneighbors(unit[asked], return_distance=False)]
    is_other = images[found] != images[asked, None]
    votes = is_other.sum(axis=1)
    same = (is_other & (classes[found] == classes[asked, None])).sum(axis=1)
    agreeing[asked] = np.where(votes, same / np.maximum(votes, 1), 1)
    first = found[np.arange(len(asked)), is_other.argmax(axis=1)]
    nearest[asked] = np.where(votes, first, -1)
    cosine[asked] = np.einsum("nd,nd->n", unit[asked], unit[first])
  return agreeing, nearest, cosine


def _cells(unit: np.ndarray, asked: np.ndarray, members: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Halves images where they vary most, as a spill tree does.

  Yields the rows of a cell, and those with which they are compared: the cell and what is near its border.
  """
  if len(asked) <= _CELL:
    yield asked, members[:: -(-len(members) // _MOST)]
    return
  sample = unit[asked[:: max(1, len(asked) // _ROWS)]]
  axis = np.linalg.eigh(np.cov(sample.T))[1][:, -1].astype(np.float32)
  places, of_members = unit[asked] @ axis, unit[members] @ axis
  middle, margin = np.median(places), _SPILL * places.std()
  is_left = places <= middle
  if is_left.all():  # they are all the same
    is_left = np.arange(len(asked)) < len(asked) // 2
  yield from _cells(unit, asked[is_left], members[of_members <= middle + margin])
  yield from _cells(unit, asked[~is_left], members[of_members >= middle - margin])
