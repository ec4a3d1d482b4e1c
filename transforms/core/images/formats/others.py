"""Names what is no image that TensorFlow decodes."""

from __future__ import annotations

from beam_retrain.transforms.core.images.formats.info import Fault
from beam_retrain.transforms.core.records.quarantine import Reason

_CONVERT = "convert the folder with `beam-retrain convert` and give its output"
_STARTS = {
  b"II*\0": "a TIFF",
  b"MM\0*": "a TIFF",
  b"II+\0": "a BigTIFF",
  b"MM\0+": "a BigTIFF",
  b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000",
  b"\xff\x4f\xff\x51": "a JPEG 2000",
  b"\0\0\1\0": "an ICO",
  b"8BPS": "a PSD",
}
_NO_REMEDY_OF_OURS = {
  b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL: save it as PNG or JPEG",
  b"\xff\x0a": "a JPEG XL: save it as PNG or JPEG",
  b"%PDF-": "a PDF: save its pages as PNG or JPEG",
  b"\0\x05\x16\x07": "an AppleDouble file, which holds no pixels: delete it",
  b"version https://git-lfs.github.com/spec/": "a Git LFS pointer: run `git lfs pull`",
}
_BRANDS = {
  "an AVIF": (b"avif", b"avis"),
  "a HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
_HTML = (b"<!doctype html", b"<html", b"<head")
_SVG = (b"<svg", b"<?xml", b"<!--")
_LOOKED_AT = 512


def name(encoded: bytes) -> Fault:
  """Returns the fault of a file that is not decoded."""
  start = encoded[:_LOOKED_AT]
  for magic, what in _STARTS.items():
    if start.startswith(magic):
      return _unsupported(f"{what}: {_CONVERT}")
  if start.startswith(b"\0\0\2\0") and start[4:6] > b"\0\0":  # a number of images, which a TGA has not
    return _unsupported(f"a cursor: {_CONVERT}")
  for magic, what in _NO_REMEDY_OF_OURS.items():
    if start.startswith(magic):
      return _unsupported(what)
  if start[4:8] == b"ftyp":
    box = start[8 : max(16, int.from_bytes(start[:4]))]
    brands = {box[at : at + 4] for at in range(0, len(box), 4)}
    for what, names in _BRANDS.items():
      if not brands.isdisjoint(names):
        return _unsupported(f"{what}: {_CONVERT}")
  text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
  if text.startswith(_SVG) and b"<svg" in text:
    return _unsupported("an SVG: save it as PNG")
  if text.startswith(_HTML):
    return _unsupported("an HTML page in place of an image: download it again")
  return Fault(Reason.NOT_AN_IMAGE, "neither JPEG, PNG, BMP, GIF nor WebP")


def _unsupported(what: str) -> Fault:
  return Fault(Reason.UNSUPPORTED, what)
