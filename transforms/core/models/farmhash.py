"""FarmHash's `Fingerprint64`, which TensorFlow takes of a saved graph.

https://github.com/google/farmhash, `farmhashna::Hash64` of more than 64 bytes, in unsigned 64-bit arithmetic.
"""

from __future__ import annotations

import struct

_K0, _K1, _K2, _SEED = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F, 81
_BITS = (1 << 64) - 1
_BLOCK = struct.Struct("<8Q")


def fingerprint64(data: bytes) -> int:
  """Returns 0..2**64-1 of at least 65 bytes."""
  x, y = _SEED, _SEED * _K1 + 113 & _BITS
  z = _mix(y * _K2 + 113 & _BITS) * _K2 & _BITS
  v = w = (0, 0)
  x = x * _K2 + int.from_bytes(data[:8], "little") & _BITS
  rounds = (len(data) - 1) // 64
  for number in range(rounds):
    x, y, z, v, w = _round(_BLOCK.unpack_from(data, 64 * number), x, y, z, v, w, _K1, 1)
  mul = _K1 + ((z & 0xFF) << 1)
  w = (w[0] + (len(data) - 1 & 63), w[1])
  v = (v[0] + w[0], v[1])
  w = (w[0] + v[0], w[1])
  x, y, z, v, w = _round(_BLOCK.unpack_from(data, len(data) - 64), x, y, z, v, w, mul, 9)
  return _pair(_pair(v[0], w[0], mul) + _mix(y) * _K0 + z, _pair(v[1], w[1], mul) + x, mul)


_Two = tuple[int, int]


def _round(s: tuple[int, ...], x: int, y: int, z: int, v: _Two, w: _Two, mul: int, factor: int):  # type: ignore[no-untyped-def]
  x = _rotate(x + y + v[0] + s[1], 37) * mul ^ w[1] * factor
  y = _rotate(y + v[1] + s[6], 42) * mul + v[0] * factor + s[5] & _BITS
  z = _rotate(z + w[0], 33) * mul & _BITS
  v = _weak(s[:4], v[1] * mul, (x & _BITS) + w[0])
  w = _weak(s[4:], z + w[1], y + s[2])
  return z, y, x & _BITS, v, w


def _weak(s: tuple[int, ...], a: int, b: int) -> _Two:
  a += s[0]
  b = _rotate(b + a + s[3], 21)
  inner = a + s[1] + s[2]
  return inner + s[3] & _BITS, b + _rotate(inner, 44) + a & _BITS


def _pair(u: int, v: int, mul: int) -> int:
  a = _mix((u ^ v) * mul & _BITS)
  b = _mix((v ^ a) * mul & _BITS)
  return b * mul & _BITS


def _mix(value: int) -> int:
  return (value & _BITS) ^ (value & _BITS) >> 47


def _rotate(value: int, by: int) -> int:
  value &= _BITS
  return (value >> by | value << 64 - by) & _BITS
