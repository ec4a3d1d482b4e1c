"""What deploy/kubernetes/flink.yaml starts, on hosts: Flink by its configuration, worker pools, the Job's command.

Replaced are what a cluster gives a name to: the bucket's server, the master's address, and where files lie.
"""

from __future__ import annotations

import subprocess

from deploy.engines import hosts as layout
from tests.deploy.test_flink_operator import manifests, sidecar
from tests.system.engine_suite import assert_same, engine_file, needs_engines
from tests.system.test_hosts import Local, finish, needs_hosts, up, write_idx


@needs_engines
@needs_hosts
def test_on_request_the_operator_s_flink_with_worker_pools(tmp_path, monkeypatch):
  deployment, job = manifests()
  ours = layout.cluster._flink_conf

  def configured(*arguments):
    return {**ours(*arguments), **deployment["spec"]["flinkConfiguration"]}

  monkeypatch.setattr(layout.cluster, "_flink_conf", configured)
  images = write_idx(tmp_path / "images", 900, 100)
  with up("flink", tmp_path / "hosts") as lab:
    lab.upload(images)
    boot = str(lab.hosts.folder / "worker")
    command = [word.replace("/usr/local/bin/beam-retrain-worker", boot) for word in sidecar(deployment)["command"]]
    pools = [
      subprocess.Popen(lab.hosts.command(name, command), env=lab.hosts.environment(name), stderr=subprocess.DEVNULL)
      for name in lab.hosts.names
      if name.startswith("worker")
    ]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    stage, *argv = container["args"]
    (master,) = (flag.partition("=")[2] for flag in lab.flags if flag.startswith("--flink_master="))
    jar = str(engine_file("flink", "job-server.jar"))
    names = {"beam-retrain-flink-rest:8081": master, "/opt/flink-job-server/job-server.jar": jar}
    for name, here in names.items():
      argv = [word.replace(name, here) for word in argv]
    try:
      finish(lab.start(stage, *argv, "--batch_size=32", with_engine=False), secs=500)
    finally:
      for pool in pools:
        pool.kill()
    assert_same(lab.bucket / "bottlenecks", Local(tmp_path).bottlenecks_of(images), has_same_inputs=False)
