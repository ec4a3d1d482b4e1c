"""Inception v3 at any width and input size, and the bundled trunk.

The blocks are those of Szegedy et al., "Rethinking the Inception Architecture" (2015), as in keras.applications: at
width 1.0 layers and weights match one by one, so that weights can be copied. The only difference is the input: 0..1,
as from `tf.image.convert_image_dtype`, scaled inside the model.
"""

from __future__ import annotations

import itertools
import pathlib
import zipfile
import zlib
from collections.abc import Iterator

import keras
import numpy as np

from beam_retrain.transforms.core.errors import InputError
from beam_retrain.transforms.core.models.saved_model import BUNDLED_WEIGHTS

BUNDLED_WIDTH = 0.25
BUNDLED_INPUT_PX = 75
MIN_INPUT_PX = 75  # smaller grids vanish in the last strided convolutions

# A step of a branch is (filters, kernel rows, kernel columns), "avg" for a 3 x 3 average at stride 1, "max" for a
# 3 x 3 maximum at stride 2, "half" before a convolution that halves the grid, or, last, a tuple of parallel steps
# whose outputs are concatenated.
_STEM = ("half", (32, 3, 3), "valid", (32, 3, 3), (64, 3, 3), "max", (80, 1, 1), "valid", (192, 3, 3), "max")


def _block_35(pool: int) -> tuple:
  """Grid of 35 (at 299 px): 1x1, 5x5, double 3x3, pool."""
  return (
    ((64, 1, 1),),
    ((48, 1, 1), (64, 5, 5)),
    ((64, 1, 1), (96, 3, 3), (96, 3, 3)),
    ("avg", (pool, 1, 1)),
  )


def _block_17(inner: int) -> tuple:
  """Grid of 17: 7x7 kernels, factorized into a row and a column."""
  return (
    ((192, 1, 1),),
    ((inner, 1, 1), (inner, 1, 7), (192, 7, 1)),
    ((inner, 1, 1), (inner, 7, 1), (inner, 1, 7), (inner, 7, 1), (192, 1, 7)),
    ("avg", (192, 1, 1)),
  )


_BLOCK_8 = (
  ((320, 1, 1),),
  ((384, 1, 1), ((384, 1, 3), (384, 3, 1))),
  ((448, 1, 1), (384, 3, 3), ((384, 1, 3), (384, 3, 1))),
  ("avg", (192, 1, 1)),
)

_BLOCKS = (
  _block_35(32),
  _block_35(64),
  _block_35(64),
  (("half", (384, 3, 3)), ((64, 1, 1), (96, 3, 3), "half", (96, 3, 3)), ("max",)),
  _block_17(128),
  _block_17(160),
  _block_17(160),
  _block_17(192),
  (
    ((192, 1, 1), "half", (320, 3, 3)),
    ((192, 1, 1), (192, 1, 7), (192, 7, 1), "half", (192, 3, 3)),
    ("max",),
  ),
  _BLOCK_8,
  _BLOCK_8,
)


def _follow(x: keras.KerasTensor, steps: tuple, width: float, numbers: Iterator[int]) -> keras.KerasTensor:
  """Applies the steps of one branch to `x`.

  A convolution has no bias, its batch norm no scale, and ReLU follows. `numbers` count the model's convolutions.
  """
  strides, padding = 1, "same"  # of the next convolution
  for step in steps:
    if step == "half":
      strides, padding = 2, "valid"
    elif step == "valid":
      padding = "valid"
    elif step == "avg":
      x = keras.layers.AveragePooling2D(3, strides=1, padding="same")(x)
    elif step == "max":
      x = keras.layers.MaxPooling2D(3, strides=2)(x)
    elif isinstance(step[0], tuple):
      x = keras.layers.Concatenate()([_follow(x, (way,), width, numbers) for way in step])
    else:
      filters, *kernel = step
      number = f"{next(numbers):02d}"
      x = keras.layers.Conv2D(
        max(1, round(filters * width)), kernel, strides, padding, use_bias=False, name=f"conv_{number}"
      )(x)
      x = keras.layers.BatchNormalization(scale=False, name=f"norm_{number}")(x)
      x = keras.layers.Activation("relu", name=f"relu_{number}")(x)
      strides, padding = 1, "same"
  return x


def build_inception_v3(width: float = 1.0, input_px: int = 299) -> keras.Model:
  """Returns an untrained Inception v3 without its classifier.

  float32 [N, input_px, input_px, 3], 0..1 -> float32 [N, D], D about 2048 * width: the last block's channels, averaged
  over the grid; never negative.

  Args:
    width: factor on every layer's channels; 1.0 is the published network, 21.8 M parameters.
    input_px: at least 75.
  """
  if not width > 0:
    raise ValueError(f"width={width!r}: give a factor above 0, such as 0.25.")
  if input_px < MIN_INPUT_PX:
    raise ValueError(f"input_px={input_px!r}: Inception v3 needs at least {MIN_INPUT_PX} pixels a side.")
  numbers = itertools.count()
  image = keras.Input((input_px, input_px, 3), name="image")
  x = keras.layers.Rescaling(2.0, offset=-1.0, name="to_minus_1_to_1")(image)
  x = _follow(x, _STEM, width, numbers)
  for number, branches in enumerate(_BLOCKS):
    ends = [_follow(x, branch, width, numbers) for branch in branches]
    x = keras.layers.Concatenate(name=f"mixed_{number:02d}")(ends)
  x = keras.layers.GlobalAveragePooling2D(name="bottleneck")(x)
  return keras.Model(image, x, name="inception_v3")


def load_bundled_trunk() -> keras.Model:
  """Loads the bundled trunk, described in bundled_trunk/README.md.

  float32 [N, 75, 75, 3], 0..1 -> float32 [N, 512]; not trainable.
  """
  model = build_inception_v3(BUNDLED_WIDTH, BUNDLED_INPUT_PX)
  load_weights(model, BUNDLED_WEIGHTS)
  model.trainable = False
  return model


def load_weights(model: keras.Model, path: pathlib.Path) -> None:
  """Loads arrays, variable path -> float16, without pickle."""
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except FileNotFoundError as error:
    raise InputError(f"{path} is missing: reinstall the package, or rebuild it as described in its README.") from error
  except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
    raise InputError(f"{path} is damaged ({error}): reinstall the package.") from error
  expected = {variable.path: tuple(variable.shape) for variable in model.variables}
  actual = {name: array.shape for name, array in arrays.items()}
  if wrong := sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name)):
    raise InputError(
      f"{path} does not fit the model: {len(wrong)} of {len(expected)} arrays differ, the first is "
      f"{wrong[0]} (expected {expected.get(wrong[0])}, found {actual.get(wrong[0])})."
    )
  for variable in model.variables:
    variable.assign(arrays[variable.path].astype(np.float32))
