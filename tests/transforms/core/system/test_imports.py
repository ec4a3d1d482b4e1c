"""Large packages are imported with the garbage collector at rest, and it goes on afterwards as it was."""

from __future__ import annotations

import gc
import subprocess
import sys
import types
import weakref

import pytest

from beam_retrain.transforms.core.system.imports import gc_paused, load_command
from tests.helpers import ROOT


@pytest.fixture
def enabled_again():
  yield
  gc.enable()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_in_the_block_and_is_afterwards_as_it_was(enabled, enabled_again):
  (gc.enable if enabled else gc.disable)()
  with pytest.raises(ImportError), gc_paused():  # noqa: PT012
    with gc_paused():
      pass
    assert not gc.isenabled()
    raise ImportError
  assert gc.isenabled() == enabled


def test_what_an_import_made_in_the_block_is_not_looked_at_again(monkeypatch):
  before = gc.get_freeze_count()
  with gc_paused():
    made = [[] for _ in range(1000)]
    monkeypatch.setitem(sys.modules, "newly_imported", types.ModuleType("newly_imported"))
  assert gc.get_freeze_count() >= before + len(made)


def test_what_earlier_jobs_left_is_freed_though_a_command_is_loaded_again():
  load_command("beam_retrain.pipelines.convert")
  graph = types.ModuleType("graph")
  graph.owner = graph
  left = weakref.ref(graph)
  load_command("beam_retrain.pipelines.convert")
  del graph
  gc.collect()
  assert left() is None


@pytest.mark.parametrize(
  "code",
  [
    "from beam_retrain.transforms.core.system.imports import load_tensorflow; load_tensorflow()",
    "from beam_retrain.pipelines.cli import main\ntry: main(['convert', '--help'])\nexcept SystemExit: pass",
  ],
)
def test_tensorflow_and_the_commands_are_imported_so(code):
  # What the collector would look at when Python ends: nothing of what was imported, nor of what was done since.
  said = "import gc, atexit; atexit.register(lambda: print(len(gc.get_objects()) < 100, gc.isenabled()))"
  done = subprocess.run([sys.executable, "-c", f"{said}\n{code}"], capture_output=True, text=True, check=True)
  assert done.stdout.splitlines()[-1] == "True True"


def test_tensorflow_is_imported_without_what_keras_does_not_need_which_can_be_afterwards():
  code = (
    "import sys\n"
    "from beam_retrain.transforms.core.system.imports import load_tensorflow\n"
    "load_tensorflow()\n"
    "print('sklearn' in sys.modules, 'matplotlib' in sys.modules)\n"
    "from matplotlib.figure import Figure\n"
    "from sklearn.datasets import load_digits\n"
    "print(load_digits().data.shape)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.splitlines() == ["False False", "(1797, 64)"]


def test_a_command_imports_beam_without_clouds_and_tables_and_silently():
  code = """if True:
    import sys
    import types
    sys.modules.setdefault("google.cloud", types.ModuleType("google.cloud"))  # as a .pth file of Google's does
    from beam_retrain.transforms.core.system.imports import leave_out_of_beam, load_command
    leave_out_of_beam()
    load_command("beam_retrain.pipelines.bottlenecks")
    left_out = ("google.cloud.storage", "apitools", "boto3", "pymongo", "pandas", "pyarrow")
    assert "apache_beam" in sys.modules and not [name for name in left_out if name in sys.modules]
    from apache_beam.utils.interactive_utils import is_in_ipython
    assert not is_in_ipython() and not sys.modules["IPython"]
    import logging
    assert not logging.getLogger().handlers
    import pandas, pyarrow
    from beam_retrain.transforms.io import files
    files.check_supported("gs://bucket/data")
    files.check_supported("s3://bucket/data")"""
  ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
  assert (ended.returncode, ended.stderr) == (0, "")
