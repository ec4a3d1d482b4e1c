"""Python imports this in each worker that a command starts, by PYTHONPATH: it counts file operations there too."""

import importlib.util
import pathlib
import sys

_spec = importlib.util.spec_from_file_location("chaos_hook", pathlib.Path(__file__).parents[1] / "hook.py")
assert _spec is not None
assert _spec.loader is not None
_hook = importlib.util.module_from_spec(_spec)
sys.modules["chaos_hook"] = _hook  # dataclasses look their module up
_spec.loader.exec_module(_hook)
_hook.install_from_environment()
