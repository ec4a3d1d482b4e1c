"""Private names of TensorFlow (as of 2.21) without a public counterpart.

| name                                | reason                                                                        |
|-------------------------------------|-------------------------------------------------------------------------------|
| `convert_variables_to_constants_v2` | freezes a function; the public ones freeze sessions of TensorFlow 1           |
| `optimize_graph`                    | runs Grappler alone; elsewhere it runs anew in every session                  |
| `function_def_to_graph_def`         | unpacks a stored function without loading 90 MB of constants                  |
| `write_fingerprint`                 | a SavedModel assembled from stored parts needs its fingerprint                |

`tests/transforms/core/system/test_tensorflow_internals.py` fails when one is gone, or when TensorFlow has a public one.
"""

from __future__ import annotations

from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def
from tensorflow.python.grappler.tf_optimizer import OptimizeGraph as optimize_graph  # noqa: N813
from tensorflow.python.saved_model.fingerprinting_utils import write_fingerprint

__all__ = ["convert_variables_to_constants_v2", "function_def_to_graph_def", "optimize_graph", "write_fingerprint"]
