"""The model behind the server: requests are computed together, by one thread.

No request waits for others to come: what has come while a batch was computed is the next one.
"""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from beam_retrain.pipelines.predict import load_classifier
from beam_retrain.transforms.core.models.choose_variant import ServingVariant
from beam_retrain.transforms.core.models.inference import Inferred, LoadedModel, infer_images, load_float32
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.records.schema import SAVED_MODEL_FOLDER, Image
from beam_retrain.transforms.core.runtimes.variant import OPENVINO

MAX_WAITING = 256  # images that may wait; a request beyond is refused
MAX_WAITING_BYTES = 1 << 28
_SIZES, _COMPILED_SIZES = (1, 4, 16), (1, 16)  # OpenVINO compiles a graph for each

Answer = list[Inferred | Quarantined]


class BusyError(Exception):
  """Too many images wait already."""


def load_sizes(folder: str, serving: ServingVariant, with_vectors: bool) -> Mapping[int, LoadedModel]:
  """Loads a model for each batch size; `scores` are its output.

  `with_vectors`: its `bottleneck` is, too.
  """
  if with_vectors and not serving.is_prepared:
    return dict.fromkeys(_SIZES, load_float32(os.path.join(folder, SAVED_MODEL_FOLDER)))
  if serving.is_prepared and serving.variant.runtime == OPENVINO:
    return {size: load_classifier(folder, serving, batch_size=size) for size in _COMPILED_SIZES}
  return dict.fromkeys(_SIZES, load_classifier(folder, serving))


class _Request(NamedTuple):
  images: Sequence[bytes]
  answer: Future[Answer]


class Batches:
  """Computes requests in batches, in the order in which they came.

  Attributes:
    images: how many were computed.
    batches: how many calls that took.
  """

  def __init__(self, models: Mapping[int, LoadedModel], max_pixels: int, max_waiting: int = MAX_WAITING):
    self._models, self._max_pixels, self._max_waiting = models, max_pixels, max_waiting
    self._waiting: collections.deque[_Request] = collections.deque()
    self._changed = threading.Condition()
    self._is_closed = False
    self.images = self.batches = 0
    self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
    self._thread.start()

  @property
  def waiting(self) -> int:
    return sum(len(request.images) for request in list(self._waiting))

  def submit(self, images: Sequence[bytes]) -> Future[Answer]:
    """Returns the results to come, one for each image.

    Raises BusyError if too many images wait; an idle server takes any number.
    """
    with self._changed:
      size_bytes = sum(
        len(image) for request in [*self._waiting, _Request(images, Future())] for image in request.images
      )
      if self._waiting and (self.waiting + len(images) > self._max_waiting or size_bytes > MAX_WAITING_BYTES):
        raise BusyError
      request = _Request(images, Future())
      self._waiting.append(request)
      self._changed.notify()
    return request.answer

  def close(self) -> None:
    """Computes what waits, then ends the thread."""
    with self._changed:
      self._is_closed = True
      self._changed.notify()
    self._thread.join()

  def _work(self) -> None:
    while requests := self._next():
      try:
        results = iter(self._infer([image for request in requests for image in request.images]))
        answers = [[next(results) for _ in request.images] for request in requests]
      except Exception as error:  # of the model itself: a bad image fails alone
        for request in requests:
          request.answer.set_exception(error)
        continue
      for request, answer in zip(requests, answers, strict=True):
        request.answer.set_result(answer)

  def _next(self) -> list[_Request]:
    """Waits for requests; returns enough for a batch, none when closed."""
    requests: list[_Request] = []
    with self._changed:
      while not requests and not (self._is_closed and not self._waiting):
        self._changed.wait_for(lambda: self._waiting or self._is_closed)
        while self._waiting and sum(len(each.images) for each in requests) < max(self._models):
          request = self._waiting.popleft()
          if request.answer.set_running_or_notify_cancel():  # else its client has gone
            requests.append(request)
    return requests

  def _infer(self, images: Sequence[bytes]) -> Answer:
    size = next((size for size in sorted(self._models) if size >= len(images)), max(self._models))
    keyed = (Image(str(number), "", encoded) for number, encoded in enumerate(images))
    self._models[size].plain[0] = 0  # a server has no last image: to load TensorFlow stops all clients for seconds
    self.images += len(images)
    self.batches += -(-len(images) // size)
    return list(infer_images(keyed, self._models[size], batch_size=size, max_pixels=self._max_pixels))
