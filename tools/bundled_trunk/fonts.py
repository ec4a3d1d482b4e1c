"""Which fonts the bundled trunk learns from, and how they are fetched: by name and version, with npm.

All are free fonts (SIL Open Font License; a few Apache, MIT or Ubuntu) that the Fontsource project packs for the web.
Only images of their letters are used, and none of those is shipped: the trunk's weights are all that remains.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import subprocess

_VERSION = "5.3.0"  # of every package that does not name its own

HANDWRITING = """
    alex-brush allura amatic-sc annie-use-your-telescope architects-daughter bad-script berkshire-swash birthstone
    balsamiq-sans bubblegum-sans caveat caveat-brush cedarville-cursive chilanka comic-mono@5.2.5 comic-neue
    comic-relief condiment@4.5.1 cookie corinthia courgette covered-by-your-grace damion dancing-script
    delicious-handrawn delius ephesis farsan finger-paint gaegu gloria-hallelujah gochi-hand grand-hotel
    grandstander great-vibes handlee happy-monkey@5.2.8 herr-von-muellerhoff homemade-apple indie-flower italianno
    itim kalam kaushan-script knewave licorice liu-jian-mao-cao long-cang ma-shan-zheng@5.3.1 mansalva
    marck-script montecarlo@5.2.8 mr-de-haviland ms-madi nanum-brush-script nanum-pen-script neucha
    nova-script@4.5.7 oooh-baby pacifico parisienne patrick-hand permanent-marker pinyon-script playpen-sans
    poor-story reenie-beanie rochester rock-salt sacramento satisfy schoolbell shadows-into-light shantell-sans
    short-stack smooch sniglet sriracha sue-ellen-francisco swanky-and-moo-moo tangerine the-girl-next-door vibur
    whisper yellowtail yomogi yusei-magic zhi-mang-xing zen-kurenaido zcool-kuaile lxgw-wenkai lobster
"""

PRINT = """
    abel acme aldrich alegreya alfa-slab-one alice anonymous-pro anton arvo atkinson-hyperlegible-next audiowide
    bangers barlow bebas-neue bitter blinker bodoni-moda bree-serif cabin cardo carter-one changa-one@5.2.8 chewy
    chivo cinzel comfortaa cormorant courier-prime crimson-text dejavu-sans dm-serif-display domine dosis
    eb-garamond exo-2 fira-mono fira-sans fjalla-one gentium-plus gothic-a1 graduate ibm-plex-mono
    ibm-plex-serif im-fell-english inconsolata inder inter josefin-sans jost jura k2d@5.2.8 kanit karla lato
    lekton lexend libre-baskerville lilita-one lora luckiest-guy m-plus-rounded-1c marcellus medievalsharp
    merriweather montserrat nunito old-standard-tt orbitron oswald overpass patua-one philosopher play
    playfair-display poiret-one pt-mono quantico quicksand rajdhani righteous roboto-slab rokkitt rubik russo-one
    share-tech-mono signika source-code-pro space-mono special-elite spectral syncopate teko titillium-web ubuntu
    ubuntu-mono varela-round vollkorn work-sans zilla-slab
"""

# One font in ten is never trained on: it says how well the trunk reads a hand that it has not met.
HELD_OUT_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Font:
  package: str  # its name without scope, `caveat`
  path: pathlib.Path  # its `.woff` file, which Pillow opens as it is
  is_handwriting: bool
  is_held_out: bool  # used to choose between versions, never to train


def packages() -> dict[str, str]:
  """npm name -> pinned version, as `{"@fontsource/caveat": "5.3.0", ...}`."""
  pinned = {}
  for entry in (HANDWRITING + PRINT).split():
    name, _, version = entry.partition("@")
    pinned[f"@fontsource/{name}"] = version or _VERSION
  return pinned


def fetch_fonts(folder: pathlib.Path) -> None:
  """Installs what is missing under `folder`/node_modules; runs no package's scripts; fetches nothing twice."""
  pinned = packages()
  if all(_installed_version(folder, name) == version for name, version in pinned.items()):
    return
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": pinned}, indent=1))
  command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
  try:
    subprocess.run(command, cwd=folder, check=True)
  except FileNotFoundError as error:
    raise RuntimeError(
      f"npm fetches the fonts and is not installed: install Node.js, or copy a filled node_modules folder to {folder}."
    ) from error
  except subprocess.CalledProcessError as error:
    raise RuntimeError(
      f"npm could not fetch the fonts into {folder}: its message is above; run the command "
      "again, what has arrived is kept."
    ) from error


def find_fonts(folder: pathlib.Path) -> list[Font]:
  """The faces to draw: regular and bold, and the regular italic; Latin only; in a fixed order."""
  handwriting = {entry.partition("@")[0] for entry in HANDWRITING.split()}
  fonts = []
  for name in sorted(packages()):
    package = name.partition("/")[2]
    faces = [
      path
      for face in ("400-normal", "700-normal", "400-italic")
      if (path := folder / "node_modules" / name / "files" / f"{package}-latin-{face}.woff").exists()
    ]
    if not faces:
      raise FileNotFoundError(f"{name} has no Latin face under {folder}: delete that folder and fetch it anew.")
    fonts += [Font(package, path, package in handwriting, _is_held_out(package)) for path in faces]
  return fonts


def _installed_version(folder: pathlib.Path, name: str) -> str | None:
  manifest = folder / "node_modules" / name / "package.json"
  return json.loads(manifest.read_text())["version"] if manifest.exists() else None


def _is_held_out(package: str) -> bool:
  """By a hash of the name, so that adding a font moves no other; all faces of a package go together."""
  digest = hashlib.sha256(f"held out/{package}".encode()).digest()
  return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32
