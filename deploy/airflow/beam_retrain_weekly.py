"""Weekly training of a candidate, its comparison with the model in use, and its promotion, as an Apache Airflow DAG.

`models/current` is a link to the model in use, which the nights evaluate. Each week the images go through the trunk
(only new and changed ones do), a candidate is trained into `models/TIME` and compared with the model in use on the
testing images, and the link is set to it where it is no worse than `max_drop` allows. A candidate that is worse is a
failed task, which is not retried; the link stays. TIME is the run's: a run that is cleared after its candidate was
promoted fails before it trains, and changes nothing.

What differs from place to place stands in one Airflow Variable, `beam_retrain_weekly`, as JSON:

  {"command": "/opt/beam-retrain/bin/beam-retrain", "config": "/etc/beam-retrain/weekly.toml",
   "models": "/srv/beam-retrain/models", "work": "/srv/beam-retrain/weekly"}

`config` has the flags of the three commands, see weekly.toml.
"""

from __future__ import annotations

import datetime

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, chain

_COMMANDS = {
  "bottlenecks": '"$COMMAND" bottlenecks --config "$CONFIG" --output "$WORK/bottlenecks"',
  "train": (
    'if [ "$MODELS/$CANDIDATE" -ef "$MODELS/current" ]; then'
    ' echo "$MODELS/$CANDIDATE is the model in use: trigger a new run."; exit 1; fi; '
    '"$COMMAND" train --config "$CONFIG" --input "$WORK/bottlenecks" --output "$MODELS/$CANDIDATE"'
  ),
  # Without a baseline the gate is the candidate's alone: its drop is measured against the model.
  "compare": (
    '"$COMMAND" reevaluate --config "$CONFIG" --model "$MODELS/current" --candidate "$MODELS/$CANDIDATE"'
    ' --history "$WORK/comparisons" --date "$DAY" --baseline none'
  ),
  # A link is replaced at once: a night has the old model or the new one.
  "promote": 'ln -sfn "$CANDIDATE" "$MODELS/.next" && mv -T "$MODELS/.next" "$MODELS/current"',
}

_VARIABLE = ("command", "config", "models", "work")
_RUN_TIME = "dag_run.run_after.astimezone(dag.timezone)"

with DAG(
  dag_id="beam_retrain_weekly",
  description="Trains a candidate, compares it with the model in use, and promotes it where it is no worse",
  schedule="30 5 * * 0",
  start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
  catchup=False,
  max_active_runs=1,
  tags=["beam-retrain"],
):
  chain(
    *(
      BashOperator(
        task_id=name,
        bash_command=command,
        # Values reach the shell as variables: nothing in them is a command.
        env={
          "DAY": f"{{{{ {_RUN_TIME} | ds }}}}",
          "CANDIDATE": f"{{{{ {_RUN_TIME}.strftime('%Y-%m-%dT%H%M%S') }}}}",
          **{key.upper(): f"{{{{ var.json.beam_retrain_weekly.{key} }}}}" for key in _VARIABLE},
        },
        append_env=True,
        retries=0,
        execution_timeout=datetime.timedelta(hours=12),
      )
      for name, command in _COMMANDS.items()
    )
  )
