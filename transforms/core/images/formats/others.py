"""Names what is no image that TensorFlow decodes."""

from __future__ import annotations

import re
import struct

from beam_retrain.transforms.core.images.formats.info import Fault
from beam_retrain.transforms.core.records.quarantine import Reason

_CONVERT = "convert the folder with `beam-retrain convert` and give its output"
_CONVERT_HEIC = "convert the folder with `beam-retrain convert`, which needs the extra [heic], and give its output"
_STARTS = {
  b"II*\0": "a TIFF",
  b"MM\0*": "a TIFF",
  b"II+\0": "a BigTIFF",
  b"MM\0+": "a BigTIFF",
  b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000",
  b"\xff\x4f\xff\x51": "a JPEG 2000",
  b"\0\0\1\0": "an ICO",
  b"8BPS": "a PSD",
  b"DDS ": "a DDS",
  b"qoif": "a QOI",
  b"icns": "an ICNS",
}
_SAVE = "save it as PNG or JPEG"
_RAW = "a camera's raw file: develop it, and save it as PNG or JPEG"
_NO_REMEDY_OF_OURS = {
  b"\0\0\0\x0cJXL \r\n\x87\n": f"a JPEG XL: {_SAVE}",
  b"\xff\x0a": f"a JPEG XL: {_SAVE}",
  b"II\xbc\1": f"a JPEG XR: {_SAVE}",
  b"\x76\x2f\x31\1": f"an OpenEXR: {_SAVE}",
  b"#?RADIANCE": f"a Radiance HDR: {_SAVE}",
  b"gimp xcf": "a GIMP file: export it as PNG or JPEG",
  b"%!PS": f"an EPS: {_SAVE}",
  b"\xc5\xd0\xd3\xc6": f"an EPS: {_SAVE}",
  b"%PDF-": "a PDF: save its pages as PNG or JPEG",
  **dict.fromkeys((b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW"), _RAW),
  b"\0\x05\x16\x07": "an AppleDouble file, which holds no pixels: delete it",
  b"version https://git-lfs.github.com/spec/": "a Git LFS pointer: run `git lfs pull`",
}
_BRANDS = {
  f"an AVIF: {_CONVERT}": (b"avif", b"avis"),
  f"a HEIC: {_CONVERT_HEIC}": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
_PNM = re.compile(rb"P[1-6]\s(?:\s|#.*\n)*[0-9]+\s+[0-9]+\s")
_CR2 = b"II*\0\x10\0\0\0CR"
_REDUCED, _DNG_VERSION = 254, 50706
_HTML = (b"<!doctype html", b"<html", b"<head")
_SVG = (b"<svg", b"<?xml", b"<!--")
_LOOKED_AT = 512


def name(encoded: bytes) -> Fault:
  """Returns the fault of a file that is not decoded."""
  start = encoded[:_LOOKED_AT]
  if is_raw(encoded):
    return _unsupported(_RAW)
  for magic, what in _STARTS.items():
    if start.startswith(magic):
      return _unsupported(f"{what}: {_CONVERT}")
  if start.startswith(b"\0\0\2\0") and start[4:6] > b"\0\0":  # a number of images, which a TGA has not
    return _unsupported(f"a cursor: {_CONVERT}")
  if _PNM.match(start):
    return _unsupported(f"a PNM: {_CONVERT}")
  for magic, what in _NO_REMEDY_OF_OURS.items():
    if start.startswith(magic):
      return _unsupported(what)
  if start[128:132] == b"DICM":
    return _unsupported("a DICOM: export its pixels as PNG")
  if start[4:8] == b"ftyp":
    box = start[8 : max(16, int.from_bytes(start[:4]))]
    brands = {box[at : at + 4] for at in range(0, len(box), 4)}
    for what, names in _BRANDS.items():
      if not brands.isdisjoint(names):
        return _unsupported(what)
  text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
  if text.startswith(_SVG) and b"<svg" in text:
    return _unsupported("an SVG: save it as PNG")
  if text.startswith(_HTML):
    return _unsupported("an HTML page in place of an image: download it again")
  return Fault(Reason.NOT_AN_IMAGE, "neither JPEG, PNG, BMP, GIF nor WebP")


def is_raw(encoded: bytes) -> bool:
  """Whether a file is a camera's, whose first image is a preview.

  Most are TIFFs: a DNG says so, others begin with an image of reduced size (TIFF 6.0, section 8).
  """
  if encoded.startswith(_CR2) or encoded[4:12] == b"ftypcrx ":
    return True
  order = {b"II*\0": "<", b"MM\0*": ">"}.get(encoded[:4])
  if not order or len(encoded) < 8:
    return False
  (at,) = struct.unpack_from(f"{order}I", encoded, 4)
  entries = encoded[at + 2 : at + 2 + 12 * int.from_bytes(encoded[at : at + 2], "little" if order == "<" else "big")]
  tags = {tag: value for tag, _, _, value in struct.iter_unpack(f"{order}HHII", entries[: len(entries) // 12 * 12])}
  return _DNG_VERSION in tags or tags.get(_REDUCED, 0) & 1 == 1


def _unsupported(what: str) -> Fault:
  return Fault(Reason.UNSUPPORTED, what)
