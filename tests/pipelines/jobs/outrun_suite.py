"""A job that works on when its command has ended, as on a cluster, and another command has begun."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest

from beam_retrain.pipelines import convert
from beam_retrain.pipelines.convert import ConvertRequest
from beam_retrain.pipelines.jobs.locks import hold_output
from beam_retrain.transforms.core.images.idx import encode_idx
from beam_retrain.transforms.io import files


def check_that_it_leaves_the_output_alone(output: str, folder: Path, *flags: str) -> None:
  for name in ("train", "t10k"):
    (folder / f"{name}-images-idx3-ubyte").write_bytes(encode_idx(np.zeros((3, 8, 8), np.uint8)))
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(encode_idx(np.arange(3, dtype=np.uint8)))
  argv = [f"--input={folder}", f"--output={output}", "--formats=tfrecord", "--runner=FnApiRunner", *flags]
  request = ConvertRequest.parse(argv)
  options = request.pipeline_options()
  with hold_output(output, request.prog()):
    job = convert.plan(request)
    job.claim()
    late = beam.Pipeline(options=options)
    job.build(late)
  with hold_output(output, request.prog()):
    stray = f"{output}/records/training-00000-of-00002.tfrecord"
    files.write_bytes(stray, b"of the second one")
    with pytest.raises(Exception, match=f"another command took {output} from this one"):
      late.run().wait_until_finish()
    assert files.read_bytes(stray) == b"of the second one"
    assert not files.exists(f"{output}/COMPLETED")
    again = beam.Pipeline(options=options)
    convert.plan(request).build(again)
    again.run().wait_until_finish()
  assert files.exists(f"{output}/COMPLETED")
