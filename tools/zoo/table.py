"""The table: one line for each variant of an image. Whatever is in it goes through all doors, and onto the page.

To add a variant, add a line. Its pixels are those that its writer put in, or those that Pillow reads.
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

from PIL import Image as Pillow

from beam_retrain.transforms.core.records.quarantine import Reason
from tools.zoo.formats import bmp, gif, jpeg, others, png, webp
from tools.zoo.formats.gif import Frame
from tools.zoo.formats.made import Made, by_pillow, changed, cut, flipped, followed, replaced

BOUNDS = {"JPEG": 8, "WebP": 1}
"""Grey levels by which TensorFlow and Pillow may differ in a format; 0 for all others.

TensorFlow decodes a JPEG with libjpeg's fast transform (JDCT_IFAST), Pillow with its accurate one (JDCT_ISLOW).
"""
_AT_QUALITY = {95: 20, 100: 40}  # where the fast transform rounds by more than the encoder did

SAME, REFUSES = "the same", "refuses it"
SHOWS = "shows something"
UNBOUNDED = "not tried: nothing bounds it"


class Variant(NamedTuple):
  format: str
  what: str
  made: Made
  reason: Reason | None  # why all doors refuse it; None: they show its pixels
  pillow: str  # what Pillow makes of it: `SAME`, `REFUSES`, or what else it shows
  alone: str  # what the exported model makes of it without beam-retrain: as above, or `UNBOUNDED`
  bound: int = 0

  @property
  def name(self) -> str:
    return f"{self.format}: {self.what}"


def shown(
  format: str, what: str, made: Made, pillow: str = SAME, alone: str = SAME, bound: int | None = None
) -> Variant:
  return Variant(format, what, made, None, pillow, alone, BOUNDS.get(format, 0) if bound is None else bound)


def refused(reason: Reason, format: str, what: str, made: Made, pillow: str = REFUSES, alone: str = REFUSES) -> Variant:
  return Variant(format, what, made, reason, pillow, alone)


truncated, too_large = functools.partial(refused, Reason.TRUNCATED), functools.partial(refused, Reason.TOO_LARGE)
unsupported = functools.partial(refused, Reason.UNSUPPORTED)
not_an_image = functools.partial(refused, Reason.NOT_AN_IMAGE)
_EXIF = Pillow.Exif()
_EXIF[0x0112] = 6
_ICC = b"\0" * 128 + b"a colour profile that nobody reads"
_LARGE = b"\0" * 2_000_000
_EXIF_SEGMENT = jpeg.segment(0xE1, b"Exif\0\0" + _EXIF.tobytes())
_YCCK = replaced(jpeg.encode("CMYK"), b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2")

VARIANTS = [
  shown("JPEG", "baseline, 4:2:0", jpeg.encode()),
  shown("JPEG", "baseline, 4:2:2", jpeg.encode(subsampling=1)),
  shown("JPEG", "baseline, 4:4:4", jpeg.encode(subsampling=0)),
  shown("JPEG", "quality 1", jpeg.encode(quality=1)),
  *(
    shown("JPEG", f"quality {quality}, 640 x 480", jpeg.encode(quality=quality, size=(640, 480)), bound=bound)
    for quality, bound in ((90, 8), *_AT_QUALITY.items())
  ),
  shown("JPEG", "quality 100", jpeg.encode(quality=100), bound=_AT_QUALITY[100]),
  shown("JPEG", "optimized Huffman tables", jpeg.encode(optimize=True)),
  shown("JPEG", "grey", jpeg.encode("L")),
  shown("JPEG", "progressive", jpeg.encode(progressive=True)),
  shown("JPEG", "progressive, 4:4:4", jpeg.encode(progressive=True, subsampling=0)),
  shown("JPEG", "progressive, grey", jpeg.encode("L", progressive=True)),
  shown("JPEG", "progressive, CMYK", jpeg.encode("CMYK", progressive=True)),
  shown("JPEG", "CMYK, Adobe's", jpeg.encode("CMYK")),
  shown("JPEG", "YCCK, Adobe's", _YCCK),
  shown("JPEG", "CMYK without Adobe's marker", jpeg.plain_cmyk(), "takes it for Adobe's, inverted"),
  shown("JPEG", "RGB, Adobe's, not YCbCr", jpeg.encode(keep_rgb=True)),
  shown("JPEG", "restart markers by block", jpeg.encode(restart_marker_blocks=1)),
  shown("JPEG", "restart markers by row", jpeg.encode(restart_marker_rows=1)),
  shown("JPEG", "progressive with restart markers", jpeg.encode(progressive=True, restart_marker_blocks=2)),
  shown("JPEG", "arithmetic coder, grey", jpeg.arithmetic()),
  shown("JPEG", "extended sequential (SOF1)", jpeg.framed_as(jpeg.encode(), 0xC1)),
  shown("JPEG", "EXIF, orientation 6: as stored", jpeg.encode(exif=_EXIF)),
  shown("JPEG", "EXIF before JFIF", jpeg.inserted(jpeg.encode(), _EXIF_SEGMENT)),
  shown("JPEG", "without JFIF", jpeg.without(jpeg.encode(), 0xE0)),
  shown("JPEG", "an ICC profile", jpeg.encode(icc_profile=_ICC)),
  shown("JPEG", "an ICC profile in four segments", jpeg.encode(icc_profile=_ICC * 1500)),
  shown("JPEG", "XMP", jpeg.inserted(jpeg.encode(), jpeg.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"))),
  shown("JPEG", "a comment of 65,533 bytes", jpeg.inserted(jpeg.encode(), jpeg.segment(0xFE, b"x" * 65_533))),
  shown("JPEG", "a JPEG in its comment", jpeg.encode(comment=jpeg.encode("L").data)),
  shown("JPEG", "a JPEG in its EXIF", jpeg.inserted(jpeg.encode(), jpeg.segment(0xE1, jpeg.encode("L").data))),
  shown("JPEG", "16-bit quantization tables", jpeg.encode(qtables=[[300] * 64, [300] * 64])),
  shown("JPEG", "a resolution", jpeg.encode(dpi=(300, 300))),
  shown("JPEG", "fill bytes between segments", jpeg.inserted(jpeg.encode(), b"\xff" * 7 + jpeg.segment(0xFE, b"x"))),
  shown("JPEG", "bytes behind the end", followed(jpeg.encode(), b"\0" * 100)),
  shown("JPEG", "a JPEG behind the end", followed(jpeg.encode(), jpeg.encode("L").data)),
  shown("JPEG", "1 x 1", jpeg.encode(size=(1, 1))),
  shown("JPEG", "one row", jpeg.encode(size=(64, 1))),
  shown("JPEG", "odd sides, 4:2:0", jpeg.encode(size=(23, 17))),
  shown("JPEG", "300 x 200", jpeg.encode(size=(300, 200))),
  shown("JPEG", "1,200 x 800", jpeg.encode(size=(1200, 800))),
  shown("JPEG", "without Huffman tables: the usual ones", jpeg.without_all(jpeg.encode(), 0xC4)),
  shown("JPEG", "progressive, without its last scan", jpeg.without_last_scan(jpeg.encode(progressive=True))),
  shown("JPEG", "progressive, its last scan 400 times", jpeg.repeated_scan(jpeg.encode("L", progressive=True), 400)),
  truncated("JPEG", "cut within the header", cut(jpeg.encode(), 100)),
  truncated("JPEG", "cut in the middle", cut(jpeg.encode(), 0.8)),
  truncated("JPEG", "cut before the last 30 bytes", cut(jpeg.encode(quality=100), -30)),
  truncated("JPEG", "progressive, cut in the middle", cut(jpeg.encode(progressive=True), 0.7)),
  truncated("JPEG", "cut, with an end", followed(cut(jpeg.encode(size=(64, 64)), 0.7), b"\xff\xd9"), SHOWS, SHOWS),
  *(
    truncated("JPEG", what, jpeg.cut_at_restart(jpeg.encode(size=(64, 64), **options), *at), SHOWS, SHOWS)
    for what, options, at in (
      ("cut at the first restart marker, with an end", {"restart_marker_blocks": 2}, (0,)),
      ("cut at the last restart marker, with an end", {"restart_marker_rows": 1}, (-1,)),
      (
        "progressive, cut at its last restart marker, with an end",
        {"progressive": True, "restart_marker_rows": 1},
        (-1,),
      ),
      ("a part between restart markers missing", {"restart_marker_blocks": 2}, (1, 2)),
    )
  ),
  truncated("JPEG", "without quantization tables", jpeg.without_all(jpeg.encode(), 0xDB)),
  truncated("JPEG", "its first four bytes", cut(jpeg.encode(), 4)),
  truncated("JPEG", "a height of 0", jpeg.with_header(jpeg.encode(), height=0)),
  truncated(
    "JPEG", "claims 30,000 x 1,000 pixels", jpeg.with_header(jpeg.encode(), 8, 1_000, 30_000), SHOWS, UNBOUNDED
  ),
  too_large(
    "JPEG", "claims 60,000 x 60,000 pixels", jpeg.with_header(jpeg.encode(), 8, 60_000, 60_000), alone=UNBOUNDED
  ),
  too_large("JPEG", "progressive, 4,000 x 4,000, its last scan 400 times", jpeg.many_scans(), UNBOUNDED, UNBOUNDED),
  unsupported("JPEG", "12 bits", jpeg.with_header(jpeg.framed_as(jpeg.encode("L"), 0xC1), 12)),
  unsupported("JPEG", "lossless (SOF3)", jpeg.framed_as(jpeg.encode("L"), 0xC3)),
  unsupported("JPEG", "hierarchical (SOF5)", jpeg.framed_as(jpeg.encode("L"), 0xC5)),
  unsupported("JPEG", "JPEG-LS (SOF55)", jpeg.framed_as(jpeg.encode("L"), 0xF7)),
  unsupported("JPEG", "two components", jpeg.two_components()),
  #
  *(shown("PNG", f"grey, {depth} bits", png.encode(png.GREY, depth)) for depth in (1, 2, 4, 8)),
  shown("PNG", "grey, 16 bits: the upper 8", png.encode(png.GREY, 16), "white: it takes 255 for the most"),
  *(shown("PNG", f"RGB, {depth} bits", png.encode(png.RGB, depth)) for depth in (8, 16)),
  *(shown("PNG", f"palette, {depth} bits", png.encode(png.PALETTE, depth)) for depth in (1, 2, 4, 8)),
  *(
    shown("PNG", f"grey and alpha, {depth} bits: alpha dropped", png.encode(png.GREY_ALPHA, depth)) for depth in (8, 16)
  ),
  *(shown("PNG", f"RGB and alpha, {depth} bits: alpha dropped", png.encode(png.RGBA, depth)) for depth in (8, 16)),
  shown("PNG", "interlaced, grey, 1 bit", png.encode(png.GREY, 1, interlaced=True)),
  shown(
    "PNG", "interlaced, grey, 16 bits", png.encode(png.GREY, 16, interlaced=True), "white: it takes 255 for the most"
  ),
  shown("PNG", "interlaced, RGB", png.encode(interlaced=True)),
  shown("PNG", "interlaced, palette, 4 bits", png.encode(png.PALETTE, 4, interlaced=True)),
  shown("PNG", "interlaced, RGB and alpha", png.encode(png.RGBA, interlaced=True)),
  shown("PNG", "interlaced, 1 x 1", png.encode(interlaced=True, size=(1, 1))),
  shown("PNG", "interlaced, 3 x 5", png.encode(interlaced=True, size=(3, 5))),
  shown("PNG", "a transparent grey (tRNS)", png.encode(png.GREY, after=[(b"tRNS", b"\0\x64")])),
  shown("PNG", "a transparent colour (tRNS)", png.encode(after=[(b"tRNS", b"\0\xe6\0\x1e\0\x14")])),
  shown("PNG", "a palette with alpha (tRNS)", png.encode(png.PALETTE, after=[(b"tRNS", bytes(range(256)))])),
  shown("PNG", "a palette of 5 colours", png.encode(png.PALETTE, 4, colours=5)),
  shown("PNG", "gamma (gAMA) 1.0", png.encode(before=[(b"gAMA", struct.pack(">I", 100_000))])),
  shown("PNG", "sRGB and cHRM", png.encode(before=[(b"sRGB", b"\0"), (b"cHRM", bytes(32))])),
  shown("PNG", "an ICC profile (iCCP)", png.profile(_ICC)),
  shown("PNG", "an ICC profile of 2 MB", png.profile(_LARGE), REFUSES),
  shown("PNG", "background and resolution (bKGD, pHYs)", png.encode(after=[(b"bKGD", bytes(6)), (b"pHYs", bytes(9))])),
  shown("PNG", "text (tEXt, zTXt, iTXt)", png.texts()),
  shown("PNG", "a text chunk of 2 MB", png.encode(before=[(b"tEXt", b"Comment\0" + b"x" * 2_000_000)])),
  shown("PNG", "a compressed text of 2 MB", png.compressed_text(_LARGE), REFUSES),
  shown("PNG", "a text of 2 MB behind the pixels", png.encode(behind=[(b"tEXt", b"Comment\0" + b"x" * 2_000_000)])),
  shown("PNG", "EXIF, orientation 6: as stored", png.encode(after=[(b"eXIf", _EXIF.tobytes()[6:])])),
  shown("PNG", "a private chunk", png.encode(before=[(b"prVt", b"x")])),
  shown("PNG", "a private chunk of 2 MB", png.encode(before=[(b"prVt", _LARGE)])),
  shown("PNG", "suggested palette (PLTE in RGB)", png.encode(after=[(b"PLTE", bytes(30))])),
  shown("PNG", "pixels in 30 chunks", png.encode(parts=30)),
  shown("PNG", "an empty chunk of pixels", png.encode(after=[(b"IDAT", b"")])),
  shown("PNG", "filtered rows", by_pillow("PNG", size=(64, 64))),
  shown("PNG", "animated: the first frame", png.apng()),
  shown("PNG", "bytes behind the end", followed(png.encode(), b"\0" * 100)),
  shown("PNG", "1 x 1", png.encode(size=(1, 1))),
  shown("PNG", "300 x 200", png.encode(size=(300, 200))),
  shown("PNG", "75 x 75, the trunk's own size", png.encode(size=(75, 75))),
  unsupported("PNG", "of an iOS app (CgBI)", png.of_ios()),
  too_large("PNG", "pixels in 140,000 chunks", png.very_many_chunks(), UNBOUNDED, UNBOUNDED),
  truncated("PNG", "cut within the header", cut(png.encode(), 20)),
  truncated("PNG", "cut in the middle", cut(png.encode(), 0.5)),
  truncated("PNG", "its first eight bytes", cut(png.encode(), 8)),
  truncated("PNG", "a bit flipped in the header", flipped(png.encode(), 25)),
  truncated("PNG", "a bit flipped in the pixels", flipped(png.encode(), 0.5)),
  truncated("PNG", "a bit flipped in the pixels' checksum", flipped(png.encode(), -13), SHOWS),
  truncated("PNG", "pixels that are no zlib data", png.with_pixels(b"not zlib data")),
  truncated("PNG", "too few pixels", png.with_pixels(png.zeros(500))),
  truncated("PNG", "without pixels", png.encode(parts=0)),
  truncated("PNG", "a palette that is missing", replaced(png.encode(png.PALETTE, 4), b"PLTE", b"plTe")),
  truncated("PNG", "a width of 0", png.claims(0, 20)),
  truncated("PNG", "RGB of 4 bits", png.with_header(depth=4)),
  truncated("PNG", "colour type 5", png.with_header(colour=5)),
  not_an_image("PNG", "line ends changed, as by FTP", replaced(png.encode(), b"\r\n\x1a\n", b"\n\x1a\n")),
  too_large("PNG", "claims 60,000 x 60,000 pixels", png.claims(60_000, 60_000), alone=UNBOUNDED),
  #
  shown("GIF", "89a", gif.encode()),
  shown("GIF", "87a", gif.encode(version=b"87a")),
  shown("GIF", "interlaced", gif.encode([Frame(interlaced=True)])),
  shown("GIF", "a palette of its frame", gif.encode([Frame(own_palette=True)])),
  shown("GIF", "a palette of its frame alone", gif.encode([Frame(own_palette=True)], has_palette=False)),
  shown("GIF", "transparent: black", gif.encode([Frame(transparent=60)]), "the colour that is transparent"),
  shown("GIF", "a background", gif.encode(background=5)),
  shown("GIF", "comment and application extensions", gif.encode(extensions=gif.COMMENT + gif.LOOP)),
  shown("GIF", "packed by Pillow", by_pillow("GIF", "P")),
  shown("GIF", "grey, packed by Pillow", by_pillow("GIF", "L")),
  shown("GIF", "two frames: the first", gif.encode([Frame(), Frame(shift=50)])),
  shown("GIF", "30 frames: the first", gif.encode([Frame(shift=n) for n in range(30)])),
  shown("GIF", "a smaller second frame", gif.encode([Frame(), Frame(size=(5, 5), at=(4, 4), shift=50)])),
  shown(
    "GIF",
    "a larger second frame: black around the first",
    gif.encode([Frame(), Frame(size=(50, 50), shift=50)]),
    "the screen",
  ),
  shown("GIF", "frames that are disposed of", gif.encode([Frame(disposal=2), Frame(disposal=3, shift=50)])),
  shown("GIF", "a larger screen: the frame alone", gif.encode(screen=(64, 48)), "the whole screen"),
  shown("GIF", "a smaller screen: the whole frame", gif.encode(screen=(10, 10)), SAME),
  shown("GIF", "a screen of 0 x 0", gif.encode(screen=(0, 0)), SAME),
  shown("GIF", "bytes behind the end", followed(gif.encode(), b"\0" * 100)),
  shown("GIF", "without its last byte", cut(gif.encode(), -1)),
  shown(
    "GIF",
    "a frame off the corner, and a second one that makes room for it: black around the first",
    gif.encode([Frame(size=(12, 10), at=(4, 4)), Frame(shift=50)]),
    "the whole screen",
  ),
  unsupported(
    "GIF",
    "a frame off the corner, without room for it",
    gif.encode([Frame(size=(12, 10), at=(4, 4))]),
    SHOWS,
    "cuts it",
  ),
  shown("GIF", "100 frames of 800 x 800: the first", gif.many_frames(), alone=UNBOUNDED),
  shown("GIF", "1 x 1", gif.encode([Frame(size=(1, 1))], screen=(1, 1))),
  truncated("GIF", "cut within the header", cut(gif.encode(), 9)),
  truncated("GIF", "cut within the palette", cut(gif.encode(), 100)),
  truncated("GIF", "cut in the middle", cut(gif.encode(), 0.7)),
  truncated("GIF", "without a frame", gif.encode([])),
  unsupported("GIF", "without any palette", gif.encode(has_palette=False), SHOWS),
  too_large("GIF", "claims a frame of 60,000 x 60,000", gif.claims(60_000, 60_000), alone=UNBOUNDED),
  too_large("GIF", "a screen of 65,535 x 65,535", gif.encode(screen=(65535, 65535)), alone=SHOWS),
  too_large("GIF", "a second frame of 12,000 x 12,000", gif.with_large_frame(), SAME, UNBOUNDED),
  #
  shown("BMP", "24 bits", bmp.encode()),
  shown("BMP", "24 bits, top-down", bmp.encode(top_down=True)),
  shown("BMP", "24 bits, V4 header", bmp.encode(header=bmp.V4)),
  shown("BMP", "24 bits, V5 header", bmp.encode(header=bmp.V5)),
  shown("BMP", "24 bits, OS/2 2.0 header", bmp.encode(header=bmp.OS2)),
  shown("BMP", "24 bits, a gap before the pixels", bmp.encode(gap=10)),
  shown("BMP", "24 bits, odd sides", bmp.encode(size=(23, 17))),
  shown("BMP", "24 bits, 1 x 1", bmp.encode(size=(1, 1))),
  unsupported("BMP", "24 bits, bytes behind the end", followed(bmp.encode(), bytes(100)), SHOWS),
  shown("BMP", "24 bits, 300 x 200", bmp.encode(size=(300, 200))),
  shown("BMP", "32 bits", bmp.encode(32)),
  shown("BMP", "32 bits, top-down", bmp.encode(32, top_down=True)),
  shown("BMP", "32 bits, masks of blue, green, red", bmp.encode(32, compression=bmp.MASKS, masks=bmp.BGRA)),
  *(
    shown(
      "BMP",
      f"32 bits, masks of blue, green, red, alpha, V{n} header",
      bmp.encode(32, header=header, compression=bmp.MASKS, masks=bmp.BGRA),
    )
    for n, header in ((3, bmp.V3), (4, bmp.V4), (5, bmp.V5))
  ),
  shown("BMP", "8 bits, a palette of all greys in order", bmp.encode(8, grey=True)),
  unsupported("BMP", "24 bits, OS/2 1.0 header", bmp.encode(header=bmp.CORE), SHOWS),
  *(unsupported("BMP", f"palette, {bits} bits", bmp.encode(bits), SHOWS) for bits in (1, 4)),
  unsupported("BMP", "palette, 8 bits", bmp.encode(8), SHOWS),
  unsupported("BMP", "palette, 8 bits, OS/2 1.0 header", bmp.encode(8, header=bmp.CORE), SHOWS),
  unsupported("BMP", "palette, 8 bits, RLE8", bmp.encode(8, compression=bmp.RLE8), SHOWS),
  unsupported("BMP", "greys, 8 bits, RLE8", bmp.encode(8, grey=True, compression=bmp.RLE8), SHOWS),
  unsupported("BMP", "palette, 4 bits, RLE4", bmp.encode(4, compression=bmp.RLE4), SHOWS),
  unsupported("BMP", "16 bits", bmp.encode(16), SHOWS),
  unsupported("BMP", "16 bits, masks of 5, 6, 5 bits", bmp.encode(16, compression=bmp.MASKS, masks=bmp.RGB565), SHOWS),
  unsupported("BMP", "32 bits, masks of red, green, blue", bmp.encode(32, compression=bmp.MASKS, masks=bmp.RGBA)),
  unsupported(
    "BMP",
    "32 bits, masks of red, green, blue, alpha, V4 header",
    bmp.encode(32, header=bmp.V4, compression=bmp.MASKS, masks=bmp.RGBA),
    SHOWS,
  ),
  unsupported(
    "BMP",
    "32 bits, masks of alpha, blue, green, red, V5 header",
    bmp.encode(32, header=bmp.V5, compression=bmp.MASKS, masks=bmp.ABGR),
    SHOWS,
  ),
  unsupported(
    "BMP", "32 bits, four masks behind the header", bmp.encode(32, compression=bmp.ALPHA_MASKS, masks=bmp.RGBA)
  ),
  unsupported("BMP", "24 bits, compression 1", bmp.encode(compression=bmp.RLE8)),
  unsupported("BMP", "a JPEG inside", bmp.holding(jpeg.encode().data, bmp.JPEG)),
  unsupported("BMP", "a PNG inside", bmp.holding(png.encode().data, bmp.PNG)),
  truncated("BMP", "cut within the header", cut(bmp.encode(), 30)),
  truncated("BMP", "cut in the middle", cut(bmp.encode(), 0.5)),
  truncated("BMP", "without its last byte", cut(bmp.encode(), -1)),
  truncated("BMP", "pixels that begin behind the end", changed(bmp.encode(), 10, b"\0\0\1\0")),
  truncated("BMP", "a width of 0", changed(bmp.encode(), 18, bytes(4))),
  too_large(
    "BMP",
    "claims 60,000 x 60,000 pixels",
    changed(bmp.encode(), 18, struct.pack("<ii", 60_000, 60_000)),
    REFUSES,
    REFUSES,
  ),
  #
  shown("WebP", "lossy", webp.encode(quality=90)),
  shown("WebP", "lossy, quality 1", webp.encode(quality=1)),
  shown("WebP", "lossless", webp.encode(lossless=True)),
  shown("WebP", "lossless, grey", webp.encode("L", lossless=True)),
  shown("WebP", "lossy, alpha dropped", webp.with_alpha(lossless=False)),
  shown("WebP", "lossless, alpha dropped", webp.with_alpha(lossless=True)),
  shown("WebP", "animated, lossless: the first frame", webp.animated()),
  shown("WebP", "animated, lossy: the first frame", webp.animated(lossless=False)),
  shown("WebP", "EXIF, orientation 6: as stored", webp.encode(quality=90, exif=_EXIF)),
  shown("WebP", "an ICC profile", webp.encode(lossless=True, icc_profile=_ICC)),
  shown("WebP", "XMP", webp.encode(lossless=True, xmp=b"<x:xmpmeta/>")),
  shown("WebP", "an unknown chunk", webp.with_chunk(webp.encode(lossless=True, icc_profile=_ICC), b"abcd", b"x")),
  shown("WebP", "bytes behind the end", followed(webp.encode(lossless=True), bytes(100))),
  shown("WebP", "1 x 1", webp.encode(size=(1, 1))),
  shown("WebP", "odd sides", webp.encode(size=(23, 17))),
  shown("WebP", "300 x 200", webp.encode(size=(300, 200))),
  truncated("WebP", "cut within the header", cut(webp.encode(), 14)),
  truncated("WebP", "cut in the middle", cut(webp.encode(), 0.5)),
  truncated("WebP", "lossless, cut in the middle", cut(webp.encode(lossless=True), 0.5)),
  truncated("WebP", "animated, cut in the middle", cut(webp.animated(), 0.6)),
  truncated("WebP", "its first twelve bytes", cut(webp.encode(), 12)),
  #
  refused(Reason.EMPTY, "none", "0 bytes", Made(b"")),
  unsupported("TIFF", "little-endian", by_pillow("TIFF"), SHOWS),
  unsupported("TIFF", "compressed", by_pillow("TIFF", compression="tiff_lzw"), SHOWS),
  unsupported("TIFF", "big-endian, header", Made(b"MM\0*\0\0\0\x08" + bytes(100))),
  unsupported("AVIF", "still", by_pillow("AVIF"), SHOWS),
  unsupported("HEIC", "still, header", others.HEIC),
  unsupported("HEIC", "sequence, header", others.HEIF_SEQUENCE),
  unsupported("JPEG 2000", "file", by_pillow("JPEG2000"), SHOWS),
  unsupported("JPEG 2000", "code stream", by_pillow("JPEG2000", no_jp2=True), SHOWS),
  unsupported("JPEG XL", "code stream", others.JPEG_XL),
  unsupported("JPEG XL", "file", others.JPEG_XL_BOXES),
  unsupported("ICO", "icon", by_pillow("ICO", sizes=[(16, 16)]), SHOWS),
  unsupported("ICO", "cursor", others.CURSOR),
  unsupported("PSD", "header", others.PSD, SHOWS),
  unsupported("SVG", "drawing", others.SVG),
  unsupported("Git LFS", "pointer", others.GIT_LFS),
  unsupported("HTML", "page", others.HTML),
  unsupported("HTML", "page with a byte order mark", others.HTML_WITH_BLANKS),
  unsupported("AppleDouble", "file of attributes", others.APPLE_DOUBLE),
  unsupported("PDF", "document", others.PDF),
  unsupported("PNM", "RGB", by_pillow("PPM"), SHOWS),
  unsupported("PNM", "grey", by_pillow("PPM", "L"), SHOWS),
  unsupported("DDS", "RGB", by_pillow("DDS"), SHOWS),
  unsupported("QOI", "RGB", others.QOI, SHOWS),
  unsupported("ICNS", "icon", by_pillow("ICNS", size=(16, 16)), SHOWS),
  unsupported("EPS", "drawing, header", others.EPS),
  unsupported("OpenEXR", "header", others.EXR),
  unsupported("DICOM", "header", others.DICOM),
  unsupported("raw", "DNG", by_pillow("TIFF", tiffinfo={50706: b"\1\4\0\0"}), SHOWS),
  unsupported(
    "raw", "NEF, ARW and alike: a TIFF that begins with a preview", by_pillow("TIFF", tiffinfo={254: 1}), SHOWS
  ),
  unsupported("raw", "CR2, header", others.CANON_2),
  unsupported("raw", "CR3, header", others.CANON_3),
  unsupported("raw", "RAF, header", others.FUJI),
  not_an_image("TGA", "RGB", by_pillow("TGA"), SHOWS),
  not_an_image("MP4", "header", others.MP4),
  not_an_image("ZIP", "archive of a PNG", others.ZIP),
  not_an_image("gzip", "packed PNG", others.GZIP),
  not_an_image("none", "text", others.TEXT),
  not_an_image("none", "text that begins as a BMP", others.TEXT_LIKE_BMP),
  not_an_image("none", "zeros", others.ZEROS),
]
