"""`python -m tools.zoo` writes docs/images.md; with a folder, the variants as files, too."""

import re
import sys
from pathlib import Path

from tools.zoo.page import PAGE, page
from tools.zoo.table import VARIANTS

PAGE.write_text(page())
for argument in sys.argv[1:]:
  folder = Path(argument)
  folder.mkdir(parents=True, exist_ok=True)
  for number, variant in enumerate(VARIANTS):
    name = re.sub(r"[^A-Za-z0-9]+", "-", variant.name).strip("-")
    (folder / f"{number:03}-{name}.{variant.format.lower().replace(' ', '')}").write_bytes(variant.made.data)
