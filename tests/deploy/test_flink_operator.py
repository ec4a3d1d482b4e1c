"""deploy/kubernetes/flink.yaml by the schemas and by our parser; test_hosts_operator.py runs it."""

from __future__ import annotations

import copy
import zipfile
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from beam_retrain.pipelines.engines.runners import EXTERNAL, environment_of
from beam_retrain.pipelines.requests.bottlenecks import BottlenecksRequest
from tests.helpers import ROOT
from tests.system.engine_suite import engine_file, needs_engines

_FILES = ROOT / "deploy" / "kubernetes"
_SCHEMA = "META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"


def manifests() -> tuple[dict, dict]:
  deployment, job = yaml.safe_load_all((_FILES / "flink.yaml").read_text())
  return deployment, job


def sidecar(deployment: dict) -> dict:
  _, found = deployment["spec"]["taskManager"]["podTemplate"]["spec"]["containers"]
  return found


def _strict(schema: Any) -> Any:
  """The schema, which then refuses fields that it does not name, as the server's strict validation does."""
  if isinstance(schema, list):
    return [_strict(each) for each in schema]
  if not isinstance(schema, dict):
    return schema
  found = {key: _strict(value) for key, value in schema.items()}
  if isinstance(found.get("properties"), dict) and not found.get("x-kubernetes-preserve-unknown-fields"):
    found.setdefault("additionalProperties", False)
  return found


@needs_engines
def test_the_operator_s_schema_takes_the_deployment():
  with zipfile.ZipFile(engine_file("flink-operator-1.10.0", "flink-kubernetes-operator-api.jar")) as jar:
    definition = yaml.safe_load(jar.read(_SCHEMA))
  (version,) = definition["spec"]["versions"]
  deployment, _ = manifests()
  assert deployment["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
  assert deployment["kind"] == definition["spec"]["names"]["kind"]
  spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
  jsonschema.Draft202012Validator(_strict(spec)).validate(deployment["spec"])
  for wrong, value in (("flinkVersoin", "v1_19"), ("flinkVersion", "v9_99")):
    changed = copy.deepcopy(deployment["spec"])
    changed[wrong] = value
    with pytest.raises(jsonschema.ValidationError, match=value if wrong == "flinkVersion" else wrong):
      jsonschema.Draft202012Validator(_strict(spec)).validate(changed)


@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_kubernetes_takes_the_job_and_the_pod(version):
  deployment, job = manifests()
  for manifest in (job, deployment["spec"]["taskManager"]["podTemplate"]):
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_parts_fit_together():
  deployment, job = manifests()
  workers, (submits,) = sidecar(deployment), job["spec"]["template"]["spec"]["containers"]
  command, *argv = submits["args"]
  assert command == "bottlenecks"
  request = BottlenecksRequest.parse(argv)
  options = request.pipeline_options(check_engine=False)
  found = options.get_all_options()
  assert (environment_of(options), found["environment_config"]) == (EXTERNAL, "localhost:50000")
  assert "--service_port=50000" in workers["command"]
  assert found["flink_master"] == f"{deployment['metadata']['name']}-rest:8081"  # the operator's name for it
  slots = int(deployment["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
  assert found["parallelism"] == deployment["spec"]["taskManager"]["replicas"] <= slots  # one can do all the work
  (boot,) = (word.partition("=")[2] for word in workers["command"] if word.startswith("--container_executable="))
  assert f"> {boot} " in (_FILES / "Dockerfile").read_text()
  assert (
    f"COPY .engines/flink {found['flink_job_server_jar'].rpartition('/')[0]}"
    in (_FILES / "flink.Dockerfile").read_text()
  )
  assert workers["envFrom"] == submits["envFrom"]  # the same bucket's credentials


def test_a_silent_host_is_noticed_as_on_our_clusters():
  keepalive = yaml.safe_load((ROOT / "deploy" / "engines" / "flink-keepalive.yaml").read_text())
  configuration = manifests()[0]["spec"]["flinkConfiguration"]
  as_text = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in keepalive.items()}
  assert {key: configuration.get(key) for key in as_text} == as_text
