"""The schedules in deploy/: their commands are run or understood, their files read by their schedulers' own tools."""

from __future__ import annotations

import ast
import configparser
import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from PIL import Image

from beam_retrain.pipelines.reevaluate import command as reevaluate
from beam_retrain.transforms.core.run.exit_codes import ExitCode
from tests.helpers import ROOT

_DEPLOY = ROOT / "deploy"
_CRON = _DEPLOY / "cron" / "beam-retrain"
_UNITS = [_DEPLOY / "systemd" / f"beam-retrain-nightly.{kind}" for kind in ("service", "timer")]
_KUBERNETES = ("1.31", "1.34", kubernetes_validate.latest_version())


def settings() -> dict[str, str]:
  """What deploy/nightly.env says, by the shell that reads it for cron."""
  read = f'set -a && . "{_DEPLOY}/nightly.env" && exec /usr/bin/env'
  printed = subprocess.run(["/bin/sh", "-c", read], env={}, check=True, capture_output=True, text=True).stdout
  return dict(line.split("=", 1) for line in printed.splitlines())


def understood(words: list[str]) -> reevaluate.ReevaluateRequest:
  return reevaluate.ReevaluateRequest.parse(words)


def cron_line() -> list[str]:
  """Minute, hour, day, month, weekday, user, command of the one line that is no comment and no assignment."""
  lines = [line for line in _CRON.read_text().splitlines() if line and not re.match(r"#|\w+=", line)]
  (line,) = lines
  return line.split(maxsplit=6)


def test_cron_starts_it_once_a_night_as_its_own_user():
  *when, user, _ = cron_line()
  minute, hour, *rest = when
  assert minute.isdigit()
  assert 0 <= int(hour) < 6
  assert rest == ["*", "*", "*"]
  assert user == "beam-retrain"
  assert "." not in _CRON.name  # cron passes such files over without a word
  assert _CRON.read_text().endswith("\n")  # and a last line without its end


def test_the_readme_shows_how_to_run_the_cron_line_at_once():
  (script,) = re.findall(r"^sed -n '(.+)' /etc/cron.d/beam-retrain ", (_DEPLOY / "README.md").read_text(), re.MULTILINE)
  found = subprocess.run(["sed", "-n", script, str(_CRON)], capture_output=True, text=True, check=True)
  assert found.stdout.strip() == cron_line()[6].strip()


def run_cron_line(command: str, folder: Path, **changed: str) -> subprocess.CompletedProcess:
  """Runs the line's command as cron does, with `changed` settings and this Python's beam-retrain."""
  assert "%" not in command  # cron would make a line end of it
  values = {**settings(), **changed}
  env_file = folder / "nightly.env"
  names = ("MODEL", "INPUT", "HISTORY", "FLAGS", "LOG")
  env_file.write_text("".join(f'{name}="{values[name]}"\n' for name in names))
  program = folder / "beam-retrain"
  program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m beam_retrain.pipelines.cli "$@"\n')
  program.chmod(0o755)
  for installed, here in (("/etc/beam-retrain/nightly.env", env_file), ("/opt/beam-retrain/bin/beam-retrain", program)):
    assert installed in command
    command = command.replace(installed, str(here))
  return subprocess.run(
    ["/bin/sh", "-c", command],
    umask=0o077,  # as hardened machines have it
    cwd=_DEPLOY.parent,
    env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "SHELL": "/bin/sh"},  # all that cron hands on
    capture_output=True,
    text=True,
  )


def test_the_cron_line_runs_and_tells_of_a_missed_gate(tmp_path, trained_model, small_images):
  log = tmp_path / "nightly.log"
  images = shutil.copytree(small_images, tmp_path / "pictures")
  with Image.open(images / "black" / "1.png") as image:  # other bytes, which the model was not trained on
    image.save(images / "white" / "mislabelled.bmp")  # no model gets that right
  places = {"MODEL": trained_model, "INPUT": images, "HISTORY": tmp_path / "history", "LOG": log}
  changed = {name: str(path) for name, path in places.items()}
  command = cron_line()[6]

  passed = run_cron_line(command, tmp_path, **changed, FLAGS="--date=2026-11-24 --min_accuracy=0.5")
  assert (passed.stdout, passed.stderr, passed.returncode) == ("", "", 0), log.read_text()
  assert (tmp_path / "history" / "2026-11-24" / "COMPLETED").exists()
  assert (tmp_path / "history" / "metrics.prom").stat().st_mode & 0o777 == 0o644  # for node_exporter
  assert re.match(r"20\d\d-\d\d-\d\dT", log.read_text())

  missed = run_cron_line(command, tmp_path, **changed, FLAGS="--date=2026-11-25 --min_accuracy=1")
  assert (tmp_path / "history" / "2026-11-25" / "COMPLETED").exists(), log.read_text()
  assert (missed.stdout, missed.stderr) == (
    f"beam-retrain reevaluate: exit code {ExitCode.GATE_MISSED}, see {log}\n",
    "",
  )
  assert "MISSED: min_accuracy" in log.read_text()


def unit(path: Path) -> configparser.ConfigParser:
  parser = configparser.ConfigParser(interpolation=None)
  parser.optionxform = str  # type: ignore[assignment]
  parser.read(path)
  return parser


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess:
  program = shutil.which("systemd-analyze")
  if program is None:
    pytest.skip("systemd-analyze is not there: the units are checked where systemd is installed")
  return subprocess.run([program, *arguments], capture_output=True, text=True)


def test_systemd_takes_the_units_without_a_complaint(tmp_path):
  copies = []
  for path in _UNITS:
    text = path.read_text().replace("/opt/beam-retrain/bin/beam-retrain", "/bin/true")  # must be there to be verified
    (tmp_path / path.name).write_text(text)
    copies.append(str(tmp_path / path.name))
  verified = systemd_analyze("verify", *copies)
  assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_systemd_keeps_the_service_to_itself():
  # The exposure level times ten: 20 of 100, where a unit without such settings has 92.
  shielded = systemd_analyze("security", "--offline=true", "--threshold=20", str(_UNITS[0]))
  assert shielded.returncode == 0, shielded.stdout


def test_systemd_understands_when():
  timer = unit(_UNITS[1])["Timer"]
  shown = systemd_analyze("calendar", "--iterations=2", timer["OnCalendar"])
  assert shown.returncode == 0, shown.stderr
  assert len(re.findall(r"\d{4}-\d\d-\d\d 03:30:00", shown.stdout)) >= 2
  assert timer["Persistent"] == "true"


def test_the_systemd_command_is_understood_and_none_of_its_failures_hidden():
  service = unit(_UNITS[0])["Service"]
  program, command, *words = shlex.split(service["ExecStart"])
  assert (program, command) == ("/opt/beam-retrain/bin/beam-retrain", "reevaluate")  # no `-` before it
  assert "SuccessExitStatus" not in service
  assert "Restart" not in service
  values = settings()
  words = [re.sub(r"\$\{(\w+)\}", lambda name: values[name[1]], word) for word in words if word != "$FLAGS"]
  flags = understood([*words, *values["FLAGS"].split()])
  assert (flags.model, flags.input, flags.history) == (values["MODEL"], values["INPUT"], values["HISTORY"])
  assert Path(flags.history).parent == Path("/var/lib") / service["StateDirectory"]  # else it could not be written
  assert dict(flags.gates)["min_accuracy"] > 0


def manifests(name: str = "cronjob.yaml") -> list[dict]:
  return list(yaml.safe_load_all((_DEPLOY / "kubernetes" / name).read_text()))


def test_the_claims_are_those_that_the_job_mounts_and_the_pod_fills_them_as_its_user():
  *claims, pod = manifests("claims.yaml")
  job = manifests()[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
  mounted = {mount["mountPath"]: mount["name"] for mount in job["containers"][0]["volumeMounts"]}
  of_job = {volume["name"]: volume.get("persistentVolumeClaim", {}).get("claimName") for volume in job["volumes"]}
  of_pod = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]}
  (container,) = pod["spec"]["containers"]
  for mount in container["volumeMounts"]:
    assert of_pod[mount["name"]] == of_job[mounted[mount["mountPath"]]]
  assert set(of_pod.values()) == {claim["metadata"]["name"] for claim in claims}
  assert container["image"] == job["containers"][0]["image"]
  assert pod["spec"]["securityContext"]["runAsUser"] == job["securityContext"]["runAsUser"]
  (look,) = manifests("look.yaml")
  assert look["spec"]["securityContext"] == pod["spec"]["securityContext"]
  (mount,) = look["spec"]["containers"][0]["volumeMounts"]
  (volume,) = look["spec"]["volumes"]
  assert volume["persistentVolumeClaim"]["claimName"] == of_job[mounted[mount["mountPath"]]]


@pytest.mark.parametrize("version", _KUBERNETES)
def test_kubernetes_takes_the_manifests(version):
  claim, cron_job = manifests()
  for manifest in (claim, cron_job, *manifests("claims.yaml"), *manifests("look.yaml")):
    kubernetes_validate.validate(manifest, version, strict=True)
  wrong = copy.deepcopy(cron_job)
  wrong["spec"]["concurrencyPolice"] = wrong["spec"].pop("concurrencyPolicy")
  with pytest.raises(kubernetes_validate.ValidationError, match="concurrencyPolice"):
    kubernetes_validate.validate(wrong, version, strict=True)


def test_the_kubernetes_command_is_understood_and_its_folders_are_mounted():
  claim, cron_job = manifests()
  job = cron_job["spec"]["jobTemplate"]["spec"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  command, *words = container["args"]
  assert command == "reevaluate"
  flags = understood(words)
  mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
  for path, read_only in ((flags.model, True), (flags.input, True), (os.path.dirname(flags.history), False)):
    assert bool(mounts[path].get("readOnly")) == read_only
  volumes = {volume["name"]: volume for volume in pod["volumes"]}
  assert {mount["name"] for mount in mounts.values()} == set(volumes)
  assert volumes[mounts["/history"]["name"]]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
  assert not flags.trunk_threads  # the CPU limit is found
  assert pod["hostname"]  # a part of the temporary folders' names; else each pod has another


def test_kubernetes_does_not_try_again_what_would_come_out_the_same():
  job = manifests()[1]["spec"]["jobTemplate"]["spec"]
  pod = job["template"]["spec"]
  rule = job["podFailurePolicy"]["rules"][0]
  assert rule["action"] == "FailJob"
  assert rule["onExitCodes"]["values"] == [ExitCode.GATE_MISSED, ExitCode.TOO_MANY_BAD]
  assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
  assert pod["restartPolicy"] == "Never"  # or the rules are refused, by the server alone


def test_the_image_has_what_setup_py_asks_for():
  text = (_DEPLOY / "kubernetes" / "Dockerfile").read_text()
  assert re.search(r"^ARG PYTHON=python:3\.11-slim\nFROM \${PYTHON}$", text, re.MULTILINE)
  assert "'/source[fast,aws]'" in text  # the model and the images may be in a bucket
  user, group = re.search(r"^USER (\d+):(\d+)$", text, re.MULTILINE).groups()
  context = manifests()[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["securityContext"]
  assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))


@pytest.mark.parametrize("name", ["README.md", "airflow/beam_retrain_nightly.py"])
def test_the_airflow_variable_that_is_shown_has_flags_that_are_known(name):
  (shown,) = re.findall(r'\{\s*"python":.*?\}\}', (_DEPLOY / name).read_text(), re.DOTALL)
  variable = json.loads(shown)
  assert variable["python"] == "/opt/beam-retrain/bin/python"
  assert dict(understood([f"--{flag}={value}" for flag, value in variable["flags"].items()]).gates)["min_accuracy"] > 0


def test_a_cleared_week_does_not_train_what_is_in_use(tmp_path):
  module = ast.parse((_DEPLOY / "airflow" / "beam_retrain_weekly.py").read_text())
  (commands,) = [
    ast.literal_eval(step.value)
    for step in module.body
    if isinstance(step, ast.Assign) and "_COMMANDS" in ast.dump(step)
  ]
  (tmp_path / "promoted").mkdir()
  (tmp_path / "current").symlink_to("promoted")
  fixed = {"PATH": os.environ["PATH"], "COMMAND": "echo", "CONFIG": "c", "WORK": "w", "MODELS": str(tmp_path)}
  for candidate, said, code in (
    ("promoted", f"{tmp_path}/promoted is the model in use: trigger a new run.\n", 1),
    ("new", f"train --config c --input w/bottlenecks --output {tmp_path}/new\n", 0),
  ):
    command = ["bash", "-c", commands["train"]]
    ran = subprocess.run(command, env={**fixed, "CANDIDATE": candidate}, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr, ran.returncode) == (said, "", code)


def test_each_file_that_the_readme_names_is_there():
  text = (_DEPLOY / "README.md").read_text()
  links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
  paths = re.findall(r"\bdeploy/[\w./*-]+", text)
  assert links
  assert paths
  assert all((_DEPLOY / link.partition("#")[0]).exists() for link in links)
  assert all(any(_DEPLOY.parent.glob(path)) for path in paths)
