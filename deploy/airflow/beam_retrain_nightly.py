"""Nightly re-evaluation as an Apache Airflow DAG, by the Beam provider's operator.

Airflow and beam-retrain keep an environment each: the operator starts `python -I -m beam_retrain.pipelines.reevaluate`
with the Python that beam-retrain is installed in. Everything that differs from place to place stands in one Airflow
Variable, `beam_retrain_nightly`, as JSON:

  {"python": "/opt/beam-retrain/bin/python",
   "flags": {"model": "/srv/beam-retrain/model", "input": "/srv/beam-retrain/pictures",
             "history": "/srv/beam-retrain/history", "min_accuracy": 0.97, "max_drop": 0.01}}

`flags` are the command's own and Beam's, passed unchanged, so that a misspelt one is an error. `runner` is Beam's,
default DirectRunner. Any exit code but 0, for example of a missed gate, is a failed task, which is not retried: it
would fail again.
"""

from __future__ import annotations

import datetime

import pendulum
from airflow.providers.apache.beam.operators.beam import BeamRunPythonPipelineOperator
from airflow.sdk import DAG


class Reevaluate(BeamRunPythonPipelineOperator):
  """The provider's operator, with one more template field."""

  template_fields = (*BeamRunPythonPipelineOperator.template_fields, "py_interpreter")


with DAG(
  dag_id="beam_retrain_nightly",
  description="Evaluates the model, and reports what got worse since the last night",
  # The night is named after the day on which it runs, in this time zone.
  schedule="30 3 * * *",
  start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
  catchup=False,
  max_active_runs=1,
  # Numbers stay numbers, and `flags` a dict, not the text of one.
  render_template_as_native_obj=True,
  tags=["beam-retrain"],
):
  Reevaluate(
    task_id="reevaluate",
    # No path: the operator puts them side by side, `python -I -m beam_retrain.pipelines.reevaluate`.
    py_interpreter="{{ var.json.beam_retrain_nightly.python }}",
    py_options=["-I", "-m"],
    py_file="beam_retrain.pipelines.reevaluate",
    runner="{{ var.json.beam_retrain_nightly.runner | default('DirectRunner') }}",
    default_pipeline_options="{{ var.json.beam_retrain_nightly.flags }}",
    pipeline_options={"date": "{{ dag_run.run_after.astimezone(dag.timezone) | ds }}"},
    retries=0,
    execution_timeout=datetime.timedelta(hours=6),
  )
