"""The size of the report of very many images, of drawn outcomes that the real functions count and choose from.

  python -m benchmarks.report_size [--images 1000000] [--labels 1000]

Each image that the report shows gets a thumbnail of `--thumbnail_bytes`, 8 KB: a photo's takes 4 to 6.
"""

from __future__ import annotations

import argparse
import time

from beam_retrain.reporting.html_report import render_report
from beam_retrain.transforms.core.system.machine import peak_memory
from tests.report_sample import evaluation


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--images", type=int, default=1_000_000)
  parser.add_argument("--labels", type=int, default=1_000)
  parser.add_argument("--thumbnail_bytes", type=int, default=8_192)
  flags = parser.parse_args()
  sample = evaluation([f"a long label {number:04}" for number in range(flags.labels)], number=flags.images)
  thumbnail = f"data:image/jpeg;base64,{'A' * flags.thumbnail_bytes}"
  shown = [image for images in sample.images.values() for image in images]
  for image in shown:
    image["thumbnail"] = thumbnail
  began = time.process_time()
  html = render_report(sample.report()).encode()
  print(
    f"{flags.images:,} images of {flags.labels:,} labels, {len(shown):,} shown: {len(html):,} bytes,"
    f" {time.process_time() - began:.1f} s; {peak_memory() / 2**20:,.0f} MiB with the outcomes"
  )


if __name__ == "__main__":
  main()
