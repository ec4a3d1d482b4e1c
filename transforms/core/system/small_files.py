"""Reads small files of ours; says in a sentence what is damaged."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from beam_retrain.transforms.core.errors import DamagedInputError, InputError, first_line
from beam_retrain.transforms.core.system import local_files

T = TypeVar("T")
RUN_AGAIN = "run the command that wrote it again"
"""Remedy for files of outputs."""
_PLAIN = (int, float, str, bool)


def read_small(
  path: str, decode: Callable[[bytes], T], remedy: str, read: Callable[[str], bytes] = local_files.read_bytes
) -> T:
  """Returns the decoded contents of a file.

  Raises DamagedInputError if the file is damaged, missing or cannot be read.

  Args:
    decode: may raise anything for contents that are not ours.
    remedy: what the user can do, without a full stop.
  """
  try:
    return decode(read(path))
  except FileNotFoundError as error:
    raise DamagedInputError(f"{path} is missing: {remedy}.") from error
  except OSError as error:
    raise DamagedInputError(f"{path} cannot be read ({error.strerror or error}): {remedy}.") from error
  except (InputError, MemoryError):
    raise
  except Exception as error:
    raise DamagedInputError(f"{path} is damaged ({_why(error)}): {remedy}.") from error


def _why(error: Exception) -> str:
  match error:
    case UnicodeDecodeError():
      return "not UTF-8 text"
    case json.JSONDecodeError():
      return "not JSON"
    case KeyError():
      return f"no {error}"
  return first_line(error).rstrip(".")


def parse_json(kind: type[T], value: Any, key: Callable[[str], str] = str) -> T:
  """Returns JSON values as a record, by its type hints.

  Missing keys keep their defaults, and unknown ones are ignored. Raises ValueError or TypeError if a value is missing
  or of another type.

  Args:
    kind: a dataclass or named tuple.
    key: field name -> key.
  """
  record: T = _parse(kind, value, key, "it")
  return record


def _parse(kind: Any, value: Any, key: Callable[[str], str], name: str) -> Any:
  if isinstance(kind, types.UnionType):
    return None if value is None else _parse(typing.get_args(kind)[0], value, key, name)
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
    entries = _checked(value, dict, name)
    hints = _hints(kind).items()
    return kind(
      **{field: _parse(hint, entries[key(field)], key, key(field)) for field, hint in hints if key(field) in entries}
    )
  if origin is Mapping:
    return {each: _parse(arguments[1], entry, key, name) for each, entry in _checked(value, dict, name).items()}
  if origin in (tuple, Sequence):
    if arguments[0] in (int, str) and {*map(type, _checked(value, list, name))} <= {arguments[0]}:
      return tuple(value) if origin is tuple else value  # a row of a confusion matrix may be long
    items = [_parse(arguments[0], entry, key, name) for entry in _checked(value, list, name)]
    return tuple(items) if origin is tuple else items
  if isinstance(kind, type) and issubclass(kind, enum.Enum):
    return kind(value)
  if kind is float and type(value) is int:
    return value
  if kind in _PLAIN:
    _checked(value, kind, name)
    if kind is float and not math.isfinite(value):
      raise ValueError(f"{name!r} is not finite")
  return value


def _checked(value: Any, kind: type[T], name: str) -> T:
  if type(value) is not kind:
    raise TypeError(f"{name!r} is not {_NAMES.get(kind, 'a ' + kind.__name__)}")
  return value


_NAMES = {dict: "an object", list: "a list", int: "a whole number", float: "a number", str: "a text", bool: "a boolean"}


@functools.cache
def _hints(kind: type) -> Mapping[str, object]:
  return typing.get_type_hints(kind)
