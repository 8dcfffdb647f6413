"""Which other processes the job has, by what its launcher left in the environment, and how they find each other."""

from __future__ import annotations

import os
import urllib.request

import jax

from sml_jax.errors import UserError


def join() -> None:
  """Joins the other processes of the job; does nothing where there are none. Call it before any use of a device.

  Others are told by one of: JAX_COORDINATOR_ADDRESS (with JAX_NUM_PROCESSES and JAX_PROCESS_ID where no launcher counts
  the processes), SLURM inside `srun`, Open MPI's `mpirun`, a TPU slice of several hosts, several slices.

  Raises:
    UserError: the others do not come, or the environment does not say who is who.
  """
  if not _several():
    return
  # On CPUs, programs that wait for other processes would fill the queue and deadlock.
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  count, number = (os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
  # JAX gives a process of SLURM or MPI one GPU, that of its local rank; the only one of its node has all of them.
  devices = [] if _alone_on_its_node() else None
  try:
    jax.distributed.initialize(
        num_processes=int(count) if count else None, process_id=int(number) if number else None,
        local_device_ids=devices,
    )
  except (ValueError, RuntimeError) as e:
    reason = str(e).strip().splitlines()[0]
    raise UserError(f"this job has several processes, and they could not join each other: {reason}") from e


def _several() -> bool:
  env = os.environ
  if {"JAX_COORDINATOR_ADDRESS", "MEGASCALE_COORDINATOR_ADDRESS"} & env.keys():
    return True
  # What JAX asks for; a batch script outside srun has no SLURM_STEP_NODELIST.
  slurm = {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"} <= env.keys()
  if slurm and int(env["SLURM_NTASKS"]) > 1:
    return True
  if "OMPI_MCA_orte_hnp_uri" in env and int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
    return True
  return len(_hosts_of_slice()) > 1


def _alone_on_its_node() -> bool:
  env = os.environ
  if "SLURM_STEP_NUM_NODES" in env:
    return env["SLURM_STEP_NUM_NODES"] == env.get("SLURM_NTASKS")
  return env.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def _hosts_of_slice() -> list[str]:
  """The hosts of this machine's TPU slice: by GKE's variables, or by what Compute Engine says of a TPU VM; else []."""
  # One host is named "localhost" or the like, and there JAX would only wait for what it is not going to hear.
  named = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
  if named:
    return named.split(",")
  if "TPU_SKIP_MDS_QUERY" in os.environ:  # set by JAX, at its import, where there is no TPU chip
    return []
  server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
  url = f"http://{server}/computeMetadata/v1/instance/attributes/worker-network-endpoints"
  direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
  try:
    with direct.open(urllib.request.Request(url, headers={"Metadata-Flavor": "Google"}), timeout=10) as reply:
      return reply.read().decode().split(",")
  except OSError:  # not on Compute Engine, or not a TPU VM
    return []
