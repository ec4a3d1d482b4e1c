"""Whether an error is for want of memory: then it is no fault of the image, or of the file, at hand."""

from __future__ import annotations

_SAID = (
  "bad_alloc",
  "out of memory",
  "out_of_memory",
  "could not allocate",
  "failed to allocate",
  "oom when allocating",
)


def is_out_of_memory(error: BaseException) -> bool:
  """Says so of Python's errors, TensorFlow's, and those of OpenVINO and Pillow, which have no class for it."""
  if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
    return True
  return isinstance(error, (RuntimeError, OSError)) and any(words in str(error).lower() for words in _SAID)
