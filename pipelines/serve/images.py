"""Images of the inputs of earlier commands, by number.

A page asks for a number, which stands for a key that an output of ours lists: no name in a request reaches a file. An
image that has changed since is not shown.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import threading
from collections.abc import Collection
from typing import NamedTuple

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.images.headers import Fault, probe_image
from beam_retrain.transforms.core.images.thumbnails import thumbnail
from beam_retrain.transforms.core.printing import say
from beam_retrain.transforms.core.records.quarantine import MAX_PIXELS
from beam_retrain.transforms.core.records.schema import ALL, TESTING, TRAINING, Image
from beam_retrain.transforms.core.records.shards import Input
from beam_retrain.transforms.core.run.output_folder import read_info
from beam_retrain.transforms.core.run.run_info import RunInfo
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources.find import find_source

MAX_BYTES = 1 << 25  # a larger image is shown as its thumbnail alone


class InputImages:
  """Images of one input, found when a page first shows one."""

  def __init__(self, info: RunInfo, keys: Collection[str]):
    if info.settings.get("stored_bottlenecks"):  # its images are those of the bottlenecks
      info = read_info(str(info.settings["input"]), "bottlenecks", files)
    self._settings, self.keys = info.settings, set(keys)

  def read(self, key: str) -> Image | None:
    """Returns an image; None if it is not there any more."""
    with contextlib.suppress(InputError, OSError):
      split, entry = self._places.get(key, ("", None))
      found = next(iter(entry.read(split)), None) if entry else None
      return found if isinstance(found, Image) else None
    return None

  @functools.cached_property
  def _places(self) -> dict[str, tuple[str, Input]]:
    """Returns key -> (split, where the image is)."""
    names = {name: self._settings.get(name) for name in ("class_names", "transpose", "retrain_names")}
    places: dict[str, tuple[str, Input]] = {}
    try:
      source = find_source(
        str(self._settings.get("input")),
        min_classes=1,
        retrain_names=bool(names["retrain_names"]),
        class_names=str(names["class_names"]) if names["class_names"] else None,
        transpose=bool(names["transpose"]),
      )
      for shard in source.list_shards((TRAINING, TESTING) if source.has_splits else (ALL,), None):
        for entry in shard.inputs:
          for position, (key, _) in enumerate(entry.names(shard.split)):
            if key in self.keys:
              places[key] = shard.split, next(iter(entry.pick([position])))
    except (InputError, OSError) as error:
      say(f"the images of {self._settings.get('input')} cannot be shown: {error}")
    return places


class _Reference(NamedTuple):
  source: InputImages
  key: str
  sha256: str


class Images:
  """All images that pages may show; the server gives each a number."""

  def __init__(self) -> None:
    self._references: list[_Reference] = []
    self._numbers: dict[tuple[int, str], int] = {}
    self._lock = threading.Lock()

  def number(self, source: InputImages, key: str, sha256: str) -> int:
    """Returns the image's number, the same each time."""
    with self._lock:
      number = self._numbers.setdefault((id(source), key), len(self._references))
      if number == len(self._references):
        self._references.append(_Reference(source, key, sha256))
    return number

  def read(self, number: int) -> bytes | None:
    """Returns the image's bytes if it is as it was."""
    if not 0 <= number < len(self._references):
      return None
    source, key, sha256 = self._references[number]
    with self._lock:
      image = source.read(key)
    return image.encoded if image and image.sha256 == sha256 else None

  def show(self, number: int, small: bool) -> tuple[str, bytes] | None:
    """Returns (media type, bytes) for a browser."""
    encoded = self.read(number)
    info = probe_image(encoded, MAX_PIXELS) if encoded else None
    if not encoded or info is None or isinstance(info, Fault):
      return None
    if not small and len(encoded) <= MAX_BYTES:
      return f"image/{info.format}", encoded
    head, _, data = (thumbnail(encoded) or "").partition(",")
    return (head[len("data:") :].partition(";")[0], base64.b64decode(data)) if data else None
