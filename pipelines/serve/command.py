"""`beam-retrain serve`: serves a model on HTTP, with pages."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from beam_retrain.pipelines.predict import choose_serving
from beam_retrain.pipelines.requests.serve import MIN_TOKEN, ServeRequest
from beam_retrain.reporting.wording import counted
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.printing import print, say
from beam_retrain.transforms.core.run.output_folder import find_output, read_info, read_labels
from beam_retrain.transforms.core.system import local_files
from beam_retrain.transforms.core.system.extras import install_command

if TYPE_CHECKING:
  from beam_retrain.pipelines.serve.app import Server, Stored
  from beam_retrain.pipelines.serve.images import Images
  from beam_retrain.pipelines.serve.review import Review

_NAME = re.compile(r"[A-Za-z0-9._-]+")

run = ServeRequest.run


def execute(request: ServeRequest) -> int:
  """Serves until a signal comes; returns the exit code."""
  try:
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
  except ImportError as error:
    raise InputError(f"serve needs packages that are not installed: {install_command('serve')}.") from error
  from beam_retrain.pipelines.serve.listener import bind, serve

  server = plan(request)
  listening = bind(request.host, request.port)
  host, port = listening.getsockname()[:2]
  print(f"serving at http://{f'[{host}]' if ':' in host else host}:{port}/; Ctrl-C ends it", flush=True)
  with contextlib.suppress(KeyboardInterrupt):  # uvicorn repeats the signal after it has finished
    serve(server.app(), listening)
  server.batches.close()
  print(f"stopped after {counted(server.batches.images, 'image')}")
  return 0


def plan(request: ServeRequest) -> Server:
  """Opens what is to be shown, then loads the model.

  Raises:
    InputError: a folder or an argument cannot be used.
  """
  from beam_retrain.pipelines.serve.app import Server
  from beam_retrain.pipelines.serve.batches import Batches, load_sizes
  from beam_retrain.pipelines.serve.guard import Access, is_loopback
  from beam_retrain.pipelines.serve.images import Images
  from beam_retrain.pipelines.serve.nights import History

  if not _NAME.fullmatch(request.name):
    raise InputError(f"--name {request.name!r} cannot be part of an address: use letters, digits, `.`, `_` and `-`.")
  token = _read_token(request.token)
  if not token and not is_loopback(request.host):
    raise InputError(f"--host {request.host} can be reached by others: give a --token, too.")
  local_files.check_local("serve", request.model, request.evaluation, request.history, request.corrections)
  folder = find_output(request.model, "train")
  info, labels = read_info(folder, "train"), read_labels(folder)
  serving = choose_serving(folder, info, request.precision, request.runtime)
  if serving.why:
    say(serving)
  images = Images()
  history = History(request.history, images) if request.history else None
  stored = _open_bottlenecks(request.bottlenecks, info.trunk.base_fingerprint) if request.bottlenecks else None
  review = _open_review(request.evaluation, request.corrections, images, labels) if request.evaluation else None
  if stored and review:
    review.add_near(*stored)
  batches = Batches(load_sizes(folder, serving, with_vectors=stored is not None), request.max_pixels)
  return Server(request.name, labels, batches, Access(request.host, token), images, stored, review, history)


def _read_token(given: str | None) -> str | None:
  token = given
  if given and given.startswith("@"):
    try:
      token = local_files.read_bytes(given[1:]).decode().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
      cause = getattr(error, "strerror", None) or error
      raise InputError(f"the token cannot be read from {given[1:]} ({cause}): give another file.") from error
  if token is not None and (len(token) < MIN_TOKEN or not token.isascii()):
    raise InputError(f"the token needs at least {MIN_TOKEN} ASCII characters: take one of `openssl rand -hex 16`.")
  return token


def _open_bottlenecks(path: str, trunk: str) -> Stored:
  from beam_retrain.pipelines.serve.app import Stored
  from beam_retrain.pipelines.serve.images import InputImages
  from beam_retrain.pipelines.serve.neighbours import Neighbours
  from beam_retrain.transforms.io import files

  folder = find_output(files.absolute(path), "bottlenecks", files)
  info = read_info(folder, "bottlenecks", files)
  if info.trunk.base_fingerprint != trunk:
    raise InputError(f"the bottlenecks in {folder} are of another trunk than the model: give those it was trained on.")
  neighbours = Neighbours(folder, info)
  return Stored(neighbours, InputImages(info, [image.key for image in neighbours.images]))


def _open_review(path: str, corrections: str, images: Images, labels: Sequence[str]) -> Review:
  from beam_retrain.pipelines.serve.corrections import Corrections
  from beam_retrain.pipelines.serve.review import Review, open_evaluation

  parent = os.path.dirname(os.path.abspath(corrections))
  if not os.path.isdir(parent):
    raise InputError(f"--corrections {corrections} cannot be written: {parent} does not exist: make it first.")
  return Review(*open_evaluation(path), Corrections(corrections), images, labels)
