"""The options that object stores are asked with: those of the last command or pipeline, which Beam keeps."""

from __future__ import annotations

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions


def options_in_use() -> PipelineOptions:
  """Returns the same object until others are set: a client is made for each."""
  if FileSystems._pipeline_options is None:
    FileSystems.set_options(PipelineOptions(flags=[]))
  return FileSystems._pipeline_options
