"""Where commands work: places with the same path and the same content for each trial."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import random
import re
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tools.chaos import hook, processes
from tools.chaos.cases import UNDISTURBED, Case
from tools.chaos.processes import Ended, Running
from tools.chaos.trials import BYTES, DOUBLED, FAILED, LEFT, LOST, TRACEBACK, Fault

_IMAGES = (24, 8)  # of training, of testing
_LOADED = ("tensorflow", "openvino")
_SET = ("tmp", "cache", "cwd")
_CHECKOUT = Path(__file__).parents[2]
_RANDOM = re.compile(
  r"[0-9a-f]{12,}|(?<=-)[a-z0-9_]{8}(?=/)|(?<=tmp/)[a-z0-9_]{8}\b|(?<=beam-pipeline-temp)\w+|(?<=generated_file)\w+|(?<=ing-)[a-z0-9_]{8}"
  r"|(?<=chaos-)[a-z0-9_]{8}|(?<=tfevents\.)[\w.]+"
)
_RANDOM_NAMES = re.compile(r"events\.out\.tfevents\..*")


class World:
  """The finished folders of undisturbed runs, `saved`, and places like them, at `root`."""

  def __init__(self, folder: Path, isolated: bool):
    self.root, self.saved, self.logs = folder / "place", folder / "saved", folder / "logs"
    self.isolated = isolated  # whether each process has its own mounts; otherwise one trial at a time
    for path in (self.root, self.saved, self.saved / "cache", self.logs):
      path.mkdir()
    self.said: dict[str, str] = {}  # by commands without an output folder
    self.operations: dict[str, list[str]] = {}  # by the name of a case

  def make(self, cases: Sequence[Case] = UNDISTURBED) -> Iterator[str]:
    """Runs cases undisturbed, yielding their names, and saves what they write."""
    draw(self.saved)
    for case in cases:
      yield case.name
      self._measure(case)

  def _measure(self, case: Case) -> None:
    """Runs a case undisturbed in a process with its own mounts; saves its output, and counts its operations."""
    state = self.logs / "measured"
    plan = hook.Plan(str(self.root), str(state))
    pid = os.fork()
    if not pid:
      code = 1
      try:
        with self.place(case) as place:
          ended = place.run(case, plan=plan)
          state.with_suffix(".said").write_text(ended.out)
          code = ended.code
          if code:
            print(ended.out, ended.err, flush=True)
          else:
            outputs = {case.output: case.saved_as or case.output} if case.output else {}
            for name, saved in {**outputs, "cache": "cache"}.items():
              shutil.rmtree(self.saved / saved, ignore_errors=True)
              shutil.copytree(self.root / name, self.saved / saved, symlinks=True)
      except BaseException:
        traceback.print_exc()
      finally:
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    if status:
      raise SystemExit(f"chaos: {case.name} fails undisturbed: see above.")
    self.operations[case.name] = hook.operations(plan)
    if not case.output:
      self.said[case.name] = state.with_suffix(".said").read_text()

  def points(self, case: Case, count: int, random_: random.Random) -> Iterator[tuple[int, str]]:
    """Yields numbers of operations, spread over those of a case, each with its words."""
    operations = self.operations[base_name(case)]  # of variants: about as many
    total = len(operations)
    for at in sorted(random_.sample(range(1, total + 1), min(count, total))):
      yield at, f"before operation {at} of {total}: {anonymous(operations[at - 1])}"

  @contextlib.contextmanager
  def place(self, case: Case, mount: Callable[[Path], None] | None = None) -> Iterator[Place]:
    """Fills the place, a disk in memory or what `mount` mounts, with what a case needs; its process keeps it."""
    if self.isolated:
      processes.isolate()
      (mount or _mount_memory)(self.root)
    else:
      for path in self.root.iterdir():
        shutil.rmtree(path)
    for name in case.needs:
      shutil.copytree(self.saved / name, self.root / placed(name), symlinks=True)
    if not case.is_cold:
      shutil.copytree(self.saved / "cache", self.root / "cache")
    for name in _SET:
      (self.root / name).mkdir(exist_ok=True)
    yield Place(self)


def _mount_memory(root: Path) -> None:
  processes.mount("tmpfs", "chaos", root, "size=2g")


@dataclasses.dataclass
class Place:
  """A filled place, in which commands run."""

  world: World
  _number: Iterator[int] = dataclasses.field(default_factory=itertools.count)

  @property
  def root(self) -> Path:
    return self.world.root

  @property
  def environment(self) -> dict[str, str]:
    return {"TMPDIR": str(self.root / "tmp"), "BEAM_RETRAIN_CACHE_DIR": str(self.root / "cache")}

  def start(self, case: Case, *, plan: hook.Plan | None = None, prepare: Callable[[], None] = lambda: None) -> Running:
    """Starts a case in a fork of this process."""
    if plan:
      hook.prepare(plan)
    return processes.start(
      case.command_line(self.root),
      logs=self._logs(),
      folder=self.root / "cwd",
      environment=self.environment,
      plan=plan,
      hidden=_LOADED if case.forks else (),
      prepare=prepare,
    )

  def run(self, case: Case, *, plan: hook.Plan | None = None, prepare: Callable[[], None] = lambda: None) -> Ended:
    return self.start(case, plan=plan, prepare=prepare).wait()

  def run_fresh(self, case: Case, prefix: Sequence[str] = (), **environment: str) -> Ended:
    """Runs a case in a Python of its own."""
    return processes.start_fresh(
      case.command_line(self.root),
      logs=self._logs(),
      folder=self.root / "cwd",
      environment={**self.environment, **environment},
      prefix=prefix,
    ).wait()

  def _logs(self) -> Path:
    return self.world.logs / f"{os.getpid()}-{next(self._number)}"

  def plan(self, at: int, whom: str) -> hook.Plan:
    return hook.Plan(str(self.root), str(self.world.logs / f"{os.getpid()}-plan"), at, whom)

  def faults(self, case: Case, ended: Ended, damaged: str = "") -> list[Fault]:
    """Compares a command that should have succeeded with the undisturbed one; `damaged` is no part of its result."""
    if ended.code:
      return [Fault(TRACEBACK if ended.has_traceback else FAILED, f"exit code {ended.code}: {ended.sentence}")]
    found = []
    if ended.has_traceback:
      found.append(Fault(TRACEBACK, ended.err[:300]))
    if not case.output and ended.out != self.world.said[base_name(case)]:
      found.append(Fault(BYTES, f"prints something else: {ended.out[:200]!r}"))
    return [*found, *self.differences(case, damaged), *self.leftovers(case)]

  def differences(self, case: Case, damaged: str = "") -> list[Fault]:
    """Compares the output folder with the undisturbed one."""
    if not case.output:
      return []
    ours, theirs = _listing(self.world.saved / case.output), _listing(self.root / case.output)
    found = [Fault(LOST, f"{case.output}/{name} is missing") for name in sorted(ours - theirs)]
    # The lock of a killed command stays in a folder that it had finished, and holds nobody up.
    left = {name for name in theirs - ours if Path(name).name != ".lock"}
    tops = sorted(name for name in left if str(Path(name).parent) not in left)
    found += [Fault(LEFT, f"{case.output}/{anonymous(name)} is left over") for name in tops]
    for stage in case.stages:
      found += self.stage_difference(stage)
    for name in sorted(ours & theirs):
      path = f"{case.output}/{name}"
      if any(path.startswith(f"{stage}/") for stage in case.stages) or _may_differ(path) or path == damaged:
        continue
      if (self.root / path).is_file() and (self.root / path).read_bytes() != (self.world.saved / path).read_bytes():
        found.append(Fault(BYTES, f"{path} differs"))
    return found

  def stage_difference(self, stage: str) -> list[Fault]:
    """Compares a finished folder as `verify --same` does, and with its own list as `verify --folder`."""
    from beam_retrain.transforms.core.errors import InputError
    from beam_retrain.transforms.core.run.output_folder import find_faults
    from beam_retrain.transforms.evaluation.output_diff import check_comparable, compare_outputs

    first, second = str(self.world.saved / stage), str(self.root / stage)
    try:
      check_comparable(first, second)
      _, difference = compare_outputs(first, second, lambda number: None)
    except InputError as error:
      return [Fault(FAILED, f"{stage}: {error}")]
    if not difference:
      return [Fault(BYTES, f"{stage}: {' '.join(fault)}") for fault in find_faults(second, with_data=True)]
    kind = LOST if "is only in the first" in difference else DOUBLED if "is only in the second" in difference else BYTES
    return [Fault(kind, f"{stage}: {difference}")]

  def leftovers(self, case: Case) -> list[Fault]:
    """Returns what should have been removed from TMPDIR, the current folder, the cache and beside the output."""
    names = {path.name for path in self.root.iterdir()} - {*map(placed, case.needs), case.output, *_SET, "lost+found"}
    places = [*(self.root / name for name in names), *(self.root / "tmp").iterdir(), *(self.root / "cwd").iterdir()]
    # An entry that a killed process was making goes a day later: another one may be making it.
    places += (path for path in (self.root / "cache").rglob("*.tmp-*") if ".making-" not in str(path))
    places = [path for path in places if not _is_probe(path)]
    if base_name(case) == "predict":  # without an output it has no scratch folder that a later command would sweep
      places = [path for path in places if not path.name.startswith("__autograph_generated_file")]
    shown = [anonymous(str(path.relative_to(self.root))) for path in sorted(places)]
    return [Fault(LEFT, f"{name} is left over") for name in shown]


def _is_probe(path: Path) -> bool:
  """Whether Python's `tempfile` wrote a file, to see whether its folder can be used, and was killed just then."""
  return path.is_file() and path.read_bytes() in (b"", b"blat") and len(path.name) == 8


def base_name(case: Case) -> str:
  return case.name.partition(",")[0]


def placed(name: str) -> str:
  """Returns the folder of a place for a saved one: `nights@before` is put there as `nights`."""
  return name.partition("@")[0]


def anonymous(text: str) -> str:
  """Returns a text without the random parts of names and the checkout's place: reports of two runs are equal."""
  return _RANDOM.sub("*", text.replace(f"{_CHECKOUT}/", ""))


def _listing(folder: Path) -> set[str]:
  names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
  return {_RANDOM_NAMES.sub("events", name) for name in names}


def _may_differ(path: str) -> bool:
  """Whether a file outside the stages' folders changes from run to run: times, names that TensorFlow makes up."""
  return path.endswith(
    ("/events", "fingerprint.pb", "saved_model.pb", "checkpoint.meta", "retrain.json", ".beam-retrain.log")
  )


def draw(saved: Path) -> None:
  """Writes real handwritten zeros and ones as IDX files, and as PNGs in class folders."""
  import numpy as np
  from PIL import Image
  from sklearn.datasets import load_digits

  from beam_retrain.transforms.core.images.idx import encode_idx

  digits = load_digits(n_class=2)
  # 0..16 -> 0..255
  pixels = np.minimum(digits.images[: sum(_IMAGES)] * 16, 255).astype(np.uint8).repeat(3, 1).repeat(3, 2)
  labels = digits.target[: sum(_IMAGES)].astype(np.uint8)
  (saved / "data").mkdir()
  for name, part in (("train", slice(0, _IMAGES[0])), ("t10k", slice(_IMAGES[0], None))):
    (saved / "data" / f"{name}-images-idx3-ubyte").write_bytes(encode_idx(pixels[part]))
    (saved / "data" / f"{name}-labels-idx1-ubyte").write_bytes(encode_idx(labels[part]))
  for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
    path = saved / "photos" / str(label) / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@contextlib.contextmanager
def new_world(isolated: bool) -> Iterator[World]:
  """Yields a world in a temporary folder, which goes with it."""
  # Not TemporaryDirectory: each command that ends in a fork of this process would remove it.
  folder = tempfile.mkdtemp(prefix="beam-retrain-chaos-")
  try:
    yield World(Path(folder), isolated)
  finally:
    shutil.rmtree(folder)
