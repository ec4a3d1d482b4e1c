"""Inputs and trunks by path; the images of an input, scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from beam_retrain.pipelines.evaluation.images import choose_images, find_images, holds_bottlenecks, open_bottlenecks
from beam_retrain.pipelines.library.evaluation import ScoredImage, score_images
from beam_retrain.pipelines.models import trunk_sources
from beam_retrain.pipelines.models.trained import Model
from beam_retrain.pipelines.requests.evaluation import SPLITS, EvaluateRequest
from beam_retrain.transforms.core.arguments import naming_arguments
from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.inference import LoadedModel
from beam_retrain.transforms.core.records.quarantine import Quarantined
from beam_retrain.transforms.core.run.output_folder import find_output
from beam_retrain.transforms.evaluation.scoring import ScoreBottlenecks
from beam_retrain.transforms.io import files
from beam_retrain.transforms.sources import find

find_source = naming_arguments()(find.find_source)
load_trunk = naming_arguments(trunk="handle", trunk_weights="weights", trunk_input_px="input_px")(
  trunk_sources.load_trunk
)
for _public in (find_source, load_trunk):
  _public.__module__ = __name__  # by which they are pickled


def open_scored(path: str, folder: str, split: str, load: Callable[[], LoadedModel]) -> Iterator[ScoredImage]:
  """Scores the images that `evaluate --model folder --input path --split split` scores.

  Raises:
    InputError: the images cannot be used.
  """
  if split not in SPLITS:
    raise InputError(f"{split!r} is no split: give auto, testing or all.")
  model = Model(folder)
  path = find_output(files.absolute(path), "bottlenecks", files)  # of `run`
  request = EvaluateRequest(model=folder, input=path, output="", split=split)
  is_stored = holds_bottlenecks(request.input)
  found = open_bottlenecks(request.input, model) if is_stored else find_images(path, request, model)
  images = choose_images(found, split, [model])
  shards = images.source.list_shards(images.splits, images.percentages)
  if not is_stored:
    labelled = (image for shard in shards for image in shard.read_images(model.labels))
    return score_images(labelled, load())
  scorer = ScoreBottlenecks(model.saved_model, model.labels, head=model.head if model.has_head else None)
  scored = (item for shard in shards for item in scorer.score(shard))
  return (item if isinstance(item, Quarantined) else item[0] for item in scored)
