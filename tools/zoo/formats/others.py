"""Starts of files that are no JPEG, PNG, GIF, BMP or WebP, and what people take for images."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile

from tools.zoo.formats.made import Made
from tools.zoo.formats.png import encode as png


def _box(kind: bytes, data: bytes) -> bytes:
  return struct.pack(">I", len(data) + 8) + kind + data


def _zip() -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("a.png", png().data)
  return file.getvalue()


# Apple's second file of a file, as archives hold it: attributes, not the image (RFC 1740).
APPLE_DOUBLE = Made(struct.pack(">II16sHIII", 0x00051607, 0x00020000, b"Mac OS X", 1, 9, 38, 32) + b"\0" * 32)
CANON_2 = Made(b"II*\0\x10\0\0\0CR\2\0" + bytes(64))
CANON_3 = Made(_box(b"ftyp", b"crx \0\0\0\1crx isom") + bytes(64))
CURSOR = Made(struct.pack("<HHHBBBBHHII", 0, 2, 1, 16, 16, 0, 0, 1, 1, 40, 22) + bytes(40))
DICOM = Made(bytes(128) + b"DICM" + bytes(64))
EPS = Made(b"%!PS-Adobe-3.0 EPSF-3.0\n")
EXR = Made(b"\x76\x2f\x31\1\2\0\0\0" + bytes(64))
FUJI = Made(b"FUJIFILMCCD-RAW 0201" + bytes(64))
GIT_LFS = Made(b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n")
GZIP = Made(gzip.compress(png().data, mtime=0))
HEIC = Made(_box(b"ftyp", b"heic\0\0\0\0mif1heic") + _box(b"meta", bytes(64)))
HEIF_SEQUENCE = Made(_box(b"ftyp", b"hevc\0\0\0\0msf1hevc") + _box(b"meta", bytes(64)))
HTML = Made(b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n")
HTML_WITH_BLANKS = Made(b"\xef\xbb\xbf\r\n  <HTML><head></head><body>Sign in</body></html>\n")
JPEG_XL = Made(b"\xff\x0a" + bytes(range(64)))
JPEG_XL_BOXES = Made(b"\0\0\0\x0cJXL \r\n\x87\n" + _box(b"ftyp", b"jxl \0\0\0\0jxl "))
MP4 = Made(_box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41") + _box(b"mdat", bytes(64)))
PDF = Made(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type/Catalog>>\nendobj\n%%EOF\n")
PSD = Made(b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 20, 24, 8, 3) + bytes(12) + bytes(2 + 20 * 24 * 3))
SVG = Made(b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="24" height="20"/>\n')
QOI = Made(b"qoif" + struct.pack(">IIBB", 24, 20, 3, 0) + b"\xfe\1\2\3" + b"\xfd" * 7 + b"\xe5" + bytes(7) + b"\1")
TEXT = Made(b"The quick brown fox jumps over the lazy dog.\n")
TEXT_LIKE_BMP = Made(b"BMW makes cars and motorcycles in Munich, Germany.\n")
ZEROS = Made(bytes(4096))
ZIP = Made(_zip())
