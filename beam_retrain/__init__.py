"""Image transfer learning as a data-parallel Apache Beam job.

`Model("output/digits").predict(["7.png"])` labels images; `embed` and `load_bottlenecks` give vectors; `ReadImages`,
`ComputeBottlenecks` and `EvaluateClassifier` are steps of Beam pipelines. The names of `__all__` are public. They are
loaded when they are first used: importing this package loads neither Beam nor TensorFlow.
"""

# The folders of the checkout (`pipelines`, `transforms`, `trainer`, `reporting`) are linked in here, so that everything
# that is installed is `beam_retrain.*` and nothing clashes with other packages called `trainer` or `transforms`. Import
# none of them by its bare name: its modules would be loaded twice.

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors, which do not run `__getattr__`
  from beam_retrain.pipelines.library.bottlenecks import StoredBottlenecks as StoredBottlenecks
  from beam_retrain.pipelines.library.bottlenecks import embed as embed
  from beam_retrain.pipelines.library.bottlenecks import load_bottlenecks as load_bottlenecks
  from beam_retrain.pipelines.library.evaluation import Evaluation as Evaluation
  from beam_retrain.pipelines.library.evaluation import Prediction as Prediction
  from beam_retrain.pipelines.library.model import Model as Model
  from beam_retrain.pipelines.library.sources import find_source as find_source
  from beam_retrain.pipelines.library.sources import load_trunk as load_trunk
  from beam_retrain.pipelines.library.transforms import ComputeBottlenecks as ComputeBottlenecks
  from beam_retrain.pipelines.library.transforms import EvaluateClassifier as EvaluateClassifier
  from beam_retrain.transforms.bottlenecks.model_handler import ImageModelHandler as ImageModelHandler
  from beam_retrain.transforms.core.errors import InputError as InputError
  from beam_retrain.transforms.core.records.schema import Image as Image
  from beam_retrain.transforms.sources.read import ReadImages as ReadImages
  from beam_retrain.transforms.sources.read import SeparateBad as SeparateBad

  __version__: str

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
  "find_source": "beam_retrain.pipelines.library.sources",
  "load_bottlenecks": "beam_retrain.pipelines.library.bottlenecks",
  "load_trunk": "beam_retrain.pipelines.library.sources",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
  if name == "__version__":
    return importlib.metadata.version("beam-retrain")
  if name not in _MODULES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted([*(name for name in globals() if name.startswith("__")), *_MODULES, "__version__"])
