"""Image transfer learning as a data-parallel Apache Beam job.

The folders of the checkout's top level (`pipelines`, `transforms`, `trainer`, `reporting`) are linked in here, so that
everything that is installed is `beam_retrain.*` and nothing clashes with other packages called `trainer` or
`transforms`. Import none of them by its bare name: its modules would be loaded twice.

The names below are public. They are loaded when they are first used: importing this package loads neither Beam nor
TensorFlow.
"""

import importlib
from typing import Any

_MODULES = {
  "ComputeBottlenecks": "beam_retrain.pipelines.library.transforms",
  "EvaluateClassifier": "beam_retrain.pipelines.library.transforms",
  "Evaluation": "beam_retrain.pipelines.library.evaluation",
  "Image": "beam_retrain.transforms.core.records.schema",
  "ImageModelHandler": "beam_retrain.transforms.bottlenecks.model_handler",
  "InputError": "beam_retrain.transforms.core.errors",
  "Model": "beam_retrain.pipelines.library.model",
  "Prediction": "beam_retrain.pipelines.library.evaluation",
  "ReadImages": "beam_retrain.transforms.sources.read",
  "SeparateBad": "beam_retrain.transforms.sources.read",
  "StoredBottlenecks": "beam_retrain.pipelines.library.bottlenecks",
  "embed": "beam_retrain.pipelines.library.bottlenecks",
  "find_source": "beam_retrain.transforms.sources.find",
  "load_bottlenecks": "beam_retrain.pipelines.library.bottlenecks",
  "load_trunk": "beam_retrain.pipelines.models.trunk_sources",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted([*globals(), *_MODULES])
