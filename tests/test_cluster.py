"""When a process joins others, and as whom; that it really finds them is in tests/integration/test_launch.py."""

from __future__ import annotations

import http.server
import os
import threading

import jax
import pytest

from sml_jax import cluster
from sml_jax.errors import UserError

SLURM = {
    "SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_PROCID": "1", "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "2",
}  # fmt: skip
MPI = {
    "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.0.0.1:99", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}  # fmt: skip


@pytest.fixture
def joined(monkeypatch):
  """Calls `join` in an environment of these variables alone; returns what JAX was asked to do, None for nothing."""
  def call(**variables: str):
    calls = []
    monkeypatch.setattr(os, "environ", {"TPU_SKIP_MDS_QUERY": "1", **variables})
    monkeypatch.setattr(jax.distributed, "initialize", lambda **kwargs: calls.append(kwargs))
    cluster.join()
    assert len(calls) <= 1
    return calls[0] if calls else None

  return call


AUTOMATIC = {"num_processes": None, "process_id": None, "local_device_ids": None}
ALL_DEVICES = AUTOMATIC | {"local_device_ids": []}


@pytest.mark.parametrize("variables, asked", [
    ({}, None),
    ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
     {"num_processes": 2, "process_id": 0, "local_device_ids": None}),
    (SLURM, ALL_DEVICES),
    (SLURM | {"SLURM_NTASKS": "16", "SLURM_LOCALID": "3"}, AUTOMATIC),  # one process a GPU
    (SLURM | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, None),
    ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"}, None),  # a batch script outside srun
    (MPI, AUTOMATIC),
    (MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, ALL_DEVICES),
    (MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
    ({"TPU_WORKER_HOSTNAMES": "host-0,host-1"}, AUTOMATIC),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),  # one host; platform checks without a TPU set it too
    ({"TPU_PROCESS_ADDRESSES": "local"}, None),
    ({"TPU_WORKER_HOSTNAMES": "host-0", "MEGASCALE_COORDINATOR_ADDRESS": "host-0"}, AUTOMATIC),  # slices of one host
])  # fmt: skip
def test_who_joins(joined, variables, asked):
  assert joined(**variables) == asked


@pytest.mark.parametrize("endpoints, asked", [("10.0.0.1,10.0.0.2", AUTOMATIC), ("10.0.0.1", None), (None, None)])
def test_a_tpu_vm_asks_compute_engine(monkeypatch, endpoints, asked):
  """GCE_METADATA_IP is what JAX calls the address of the metadata server by."""
  class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      known = self.path == "/computeMetadata/v1/instance/attributes/worker-network-endpoints"
      found = endpoints and known and self.headers["Metadata-Flavor"] == "Google"
      self.send_response(200 if found else 404)
      self.end_headers()
      self.wfile.write((endpoints or "").encode())

    def log_message(self, *args):
      pass

  server = http.server.HTTPServer(("127.0.0.1", 0), Server)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  calls = []
  try:
    monkeypatch.setattr(os, "environ", {"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}", "http_proxy": "http://no:1"})
    monkeypatch.setattr(jax.distributed, "initialize", lambda **kwargs: calls.append(kwargs))
    cluster.join()
  finally:
    server.shutdown()
  assert calls == ([asked] if asked else [])


def test_why_they_could_not_join_is_one_line(monkeypatch):
  def initialize(**kwargs):
    raise ValueError("Number of processes must be defined.\nand so on")

  monkeypatch.setattr(os, "environ", {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"})
  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  with pytest.raises(UserError, match=r"could not join each other: Number of processes must be defined\.$"):
    cluster.join()
