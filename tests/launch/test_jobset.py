"""launch/jobset.yaml against the models that are generated from JobSet's own OpenAPI (package kubeflow-trainer-api).

They know every field of jobset.x-k8s.io/v1alpha2 and of the Kubernetes objects within, with its type. They do not know
the rules between fields that a cluster checks; those that matter here are checked below. No cluster was asked.
"""

from __future__ import annotations

import copy
import math
import pathlib
import re

import pydantic
import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

from sml_jax import command_line

ROOT = pathlib.Path(__file__).parents[2]
JOBSET = yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text())


def job(jobset):
  return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod(jobset):
  return job(jobset)["template"]["spec"]


def valid(jobset) -> bool:
  """Every field is known (one that is not would be dropped) and of its type (or ValidationError)."""
  return JobsetV1alpha2JobSet.from_dict(jobset).to_dict() == jobset


def test_it_is_a_jobset():
  assert (JOBSET["apiVersion"], JOBSET["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  assert valid(JOBSET)


@pytest.mark.parametrize("break_it", [
    lambda j: j["spec"].update(replicas=2),
    lambda j: j["spec"]["failurePolicy"].update(maxRestart=3),
    lambda j: j["spec"]["failurePolicy"]["rules"][0].update(onJobFailureReason=["x"]),
    lambda j: job(j).update(backoffLimits=0),
    lambda j: pod(j).update(terminationGracePeriodSecond=3),
    lambda j: pod(j)["containers"][0].update(arg=[]),
])  # fmt: skip
def test_a_mistyped_field_is_seen(break_it):
  broken = copy.deepcopy(JOBSET)
  break_it(broken)
  assert not valid(broken)


@pytest.mark.parametrize("break_it", [
    lambda j: j["spec"]["replicatedJobs"][0].update(replicas="one"),
    lambda j: j["spec"]["replicatedJobs"][0].pop("name"),
    lambda j: job(j).update(completions="4"),
    lambda j: pod(j)["containers"][0].update(command="python"),
])  # fmt: skip
def test_a_value_of_another_type_is_seen(break_it):
  broken = copy.deepcopy(JOBSET)
  break_it(broken)
  try:
    assert not valid(broken)
  except pydantic.ValidationError:
    pass


def test_it_asks_for_as_many_chips_as_the_slice_has():
  limits, requests = (pod(JOBSET)["containers"][0]["resources"][k]["google.com/tpu"] for k in ("limits", "requests"))
  topology = pod(JOBSET)["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
  assert job(JOBSET)["parallelism"] == job(JOBSET)["completions"]
  assert job(JOBSET)["completions"] * int(limits) == math.prod(map(int, topology.split("x")))
  assert limits == requests


def test_a_preempted_or_interrupted_run_is_started_again_and_goes_on():
  """Both fail the Job with the reason PodFailurePolicy, which restarts the set and does not use up maxRestarts."""
  rules = job(JOBSET)["podFailurePolicy"]["rules"]
  assert [r["action"] for r in rules] == ["FailJob", "FailJob"]
  assert rules[0]["onPodConditions"][0]["type"] == "DisruptionTarget"
  left = rules[1]["onExitCodes"]
  assert left["containerName"] == pod(JOBSET)["containers"][0]["name"] and left["values"] == [143]
  policy = JOBSET["spec"]["failurePolicy"]
  assert policy["rules"][0]["action"] == "RestartJobSetAndIgnoreMaxRestarts"
  assert policy["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
  assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", policy["rules"][0]["name"])  # JobSet's rule
  assert pod(JOBSET)["restartPolicy"] == "Never" and job(JOBSET)["backoffLimit"] == 0  # Kubernetes demands the first
  assert pod(JOBSET)["terminationGracePeriodSeconds"] >= 120


def test_the_program_is_started_itself_and_knows_its_arguments():
  container = pod(JOBSET)["containers"][0]
  assert container["command"] == ["python", "-m", "sml_jax.main"]  # a shell would keep SIGTERM to itself
  file, overrides, rest = command_line.split_argv(container["args"])
  command_line.load(str(ROOT / file), overrides)
  assert len(rest) == 1 and rest[0].startswith("--workdir=gs://")
