"""Which trunk photos need, and what is missing for it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shlex
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as Pillow

from beam_retrain.transforms.core.images.headers import Fault, probe_image
from beam_retrain.transforms.core.printing import Level, level, say
from beam_retrain.transforms.core.records.schema import TRAINING
from beam_retrain.transforms.core.records.splits import SplitPercentages
from beam_retrain.transforms.core.run.next_steps import program, replace_flags
from beam_retrain.transforms.core.runtimes.trunk_info import HUB_INCEPTION_V3, INCEPTION_V3, WEIGHTS, WEIGHTS_ADDRESS
from beam_retrain.transforms.core.system import scratch

if TYPE_CHECKING:
  from beam_retrain.transforms.sources.base import Source

PROBED = 8  # images whose look tells whether all are photos
_GLYPH_PX = 64  # a larger image is hardly a glyph
_COLOURED = 8.0  # mean difference of the channels, of 255, above which an image is not grey
_SECS = 3.0


def say_trunk_for_photos(source: Source, command: Sequence[str]) -> None:
  """Says which trunk to take if the images look like photos.

  `command` is what the user typed, with the bundled trunk: words after `beam-retrain`.
  """
  if level() < Level.NORMAL:
    return
  from beam_retrain.pipelines.models.sample import sample_images  # and with it Beam, which `predict` goes without

  sample = sample_images(source, (TRAINING,), SplitPercentages(), PROBED)
  if not are_photos(image.encoded for image in sample):
    return
  flags, where = photo_trunk()
  typed = shlex.join((program(), *replace_flags(command, flags)))
  say(
    "beam-retrain: warning: these are colour photos, and the bundled trunk knows only glyphs: take Inception"
    f" v3{where}: {typed}",
    file=sys.stderr,
  )


def are_photos(images: Iterable[bytes]) -> bool:
  """Returns whether a quarter are larger than glyphs, and coloured.

  No more, since some classes of photos are grey.
  """
  found = [_is_photo(encoded) for encoded in images]
  return any(found) and sum(found) * 4 >= len(found)


def _is_photo(encoded: bytes) -> bool:
  info = probe_image(encoded)
  if isinstance(info, Fault) or min(info.height, info.width) <= _GLYPH_PX:
    return False
  try:
    with Pillow.open(io.BytesIO(encoded)) as image:
      pixels = np.asarray(image.convert("RGB").resize((_GLYPH_PX, _GLYPH_PX)), np.float32)
  except Exception:  # damaged: the job says so
    return False
  return float(np.ptp(pixels, axis=2).mean()) > _COLOURED


def photo_trunk() -> tuple[dict[str, str], str]:
  """Returns a trunk for photos, as flags, and where it is."""
  in_hub, by_keras = {"trunk": INCEPTION_V3}, {"trunk": "keras:InceptionV3"}
  with scratch.outside():  # where TF Hub has its cache
    hub_cache = os.environ.get("TFHUB_CACHE_DIR") or os.path.join(tempfile.gettempdir(), "tfhub_modules")
  if os.path.isdir(os.path.join(hub_cache, hashlib.sha1(HUB_INCEPTION_V3.encode(), usedforsecurity=False).hexdigest())):
    return in_hub, f", which is in {hub_cache}"
  keras_cache = os.path.join(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "models", WEIGHTS)
  if os.path.isfile(keras_cache):
    return by_keras, f", whose weights are in {keras_cache}"
  if reaches(f"{HUB_INCEPTION_V3}?tf-hub-format=compressed"):
    return in_hub, ", which is downloaded from TF Hub"
  fetch = f". TF Hub cannot be reached from here: bring {WEIGHTS_ADDRESS} here, then"
  return {**by_keras, "trunk_weights": WEIGHTS}, fetch


def reaches(address: str, secs: float = _SECS) -> bool:
  """Returns whether a server answers, by any proxy that is set."""
  answers: list[bool] = []

  def ask() -> None:
    with contextlib.suppress(Exception), urllib.request.urlopen(address, timeout=secs):
      answers.append(True)

  asking = threading.Thread(target=ask, daemon=True)  # to look up a name has no time limit of its own
  asking.start()
  asking.join(secs)
  return bool(answers)
