"""Every command of README and docs is run, or, where it needs a network or a cluster, at least understood."""

import re
import shlex
from pathlib import Path

import pytest

from beam_retrain.pipelines.cli import COMMANDS, flags_of, main
from beam_retrain.pipelines.options.request import parse_job
from tests.conftest import QuickStart
from tests.helpers import ROOT

PAGES = (
  "README.md",
  *(
    f"docs/{name}.md"
    for name in ("commands", "python", "nightly", "clusters", "trunks", "migration", "concepts", "serve")
  ),
)
GOES_ON = {"docs/nightly.md": "docs/commands.md", "docs/clusters.md": "docs/commands.md"}
"""Page -> the one with whose folders it goes on; all others, those of README."""


def blocks(language: str, *pages: str) -> list[str]:
  """Returns what is shown in a language, on some pages or on all."""
  text = "\n".join((ROOT / page).read_text() for page in pages or PAGES)
  return re.findall(rf"```(?:{language})\n(.*?)```", text, re.DOTALL)


def letters(line: str) -> str:
  """A line without its figures and the kind of its trunk: those differ from machine to machine."""
  return "".join(re.findall("[a-z]+", re.sub(r"\(\w+ by \w+\)", "", line)))


@pytest.fixture(scope="module")
def followed() -> set[str]:
  """Those that have been."""
  return set()


def follow(page: str, quick_start: QuickStart, followed: set[str], capfd: pytest.CaptureFixture[str]) -> None:
  """Runs the commands of a page, after those of the pages that it goes on with."""
  if page in followed:
    return
  if page != PAGES[0]:
    follow(GOES_ON.get(page, PAGES[0]), quick_start, followed, capfd)
  followed.add(page)
  for number, block in enumerate(blocks("console", page)):
    command, shown = block.removeprefix("$ ").split("\n", 1)
    if page == PAGES[0] and number == 0:
      code, printed, said = 0, quick_start.printed, ""
      assert " exit code 0\n" in Path("output/digits/.beam-retrain.log").read_text()
    else:  # here, where TensorFlow and Beam are loaded already
      capfd.readouterr()
      code = main(shlex.split(command)[1:])
      printed, said = capfd.readouterr()
    assert code == 0, f"{command}\n{printed}{said}"
    lines = {letters(line) for line in printed.splitlines()}
    for line in shown.splitlines():
      if line.strip() != "...":
        assert letters(line) in lines, f"{command}\ndid not print: {line}\nbut:\n{printed}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks("console|python", page)])
def test_each_block_gives_what_it_shows(page, quick_start, followed, monkeypatch, capfd):
  monkeypatch.chdir(quick_start.copy)
  follow(page, quick_start, followed, capfd)
  for block in blocks("python", page):
    exec(compile(block, page, "exec"), {"__name__": "__main__"})


def test_each_command_is_shown():
  shown = {shlex.split(block.removeprefix("$ ").split("\n", 1)[0])[1] for block in blocks("console")}
  assert shown == set(COMMANDS) - {"serve"}  # which does not end
  assert len(blocks("python")) >= 4


def understood_commands() -> list[str]:
  text = "\n".join(blocks("sh")).replace("\\\n", " ")
  return [line for line in text.splitlines() if line.startswith("beam-retrain")]


@pytest.mark.parametrize("command", understood_commands())
def test_each_other_command_has_flags_that_are_known(command):
  _, command, *rest = shlex.split(command)
  flags = flags_of(command)
  if isinstance(flags, type):
    flags.parse(rest)
  else:
    parse_job(flags.make_parser(), rest, check_engine=False)


def test_there_are_such_commands():
  assert len(understood_commands()) >= 4


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
def test_each_make_target_is_there(target):
  makefile = (ROOT / "Makefile").read_text()
  assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("name", [*PAGES, "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/security.md"])
def test_each_link_leads_somewhere(name):
  page = ROOT / name
  links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
  assert links
  for link in links:
    file, _, heading = link.partition("#")
    target = page.parent / file if file else page
    assert target.exists(), link
    assert not heading or heading in headings_of(target), link


def headings_of(page: Path) -> set[str]:
  """Returns the anchors of a page's headings, as code hosts make them."""
  return {found.lower().replace(" ", "-") for found in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)}


def test_the_readme_is_read_in_five_minutes():
  assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_the_rooms_of_the_architecture_are_those_that_are_there():
  tree = re.search(r"```\n(pipelines/.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL)
  named: set[Path] = set()
  above: list[str] = []
  for line in tree[1].splitlines():
    depth = (len(line) - len(line.lstrip())) // 2
    rooms = re.findall(r"([a-z_]+)/(?=\s|$)", line)
    named |= {ROOT.joinpath(*above[:depth], room) for room in rooms}
    if rooms:
      above = [*above[:depth], rooms[-1]]
  assert [room for room in named if not room.is_dir()] == []
  for room in ("pipelines", "transforms", "transforms/core", "trainer"):
    there = {path.parent for path in (ROOT / room).glob("*/*") if path.parent.name != "__pycache__"}
    assert there <= named


def test_of_a_killed_run_documents_say_what_messages_say():
  documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.*")]
  said = {path.relative_to(ROOT): path.read_text() for path in documents if path.suffix in (".md", ".yaml")}
  assert [path for path, text in said.items() if "goes on where it was" in text] == []
  assert "it resumes" in said[Path("README.md")]
