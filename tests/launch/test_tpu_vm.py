"""launch/tpu_vm.sh against a gcloud that notes its calls, answers from a script, and runs here what ssh would send."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ("launch/tpu_vm.sh", "launch/worker.sh", "launch/slurm.sbatch")

GCLOUD = f"""\
#!{sys.executable} -IS
import json, os, pathlib, shutil, subprocess, sys
folder = pathlib.Path(os.environ["FAKE"])
args = sys.argv[1:]
assert args[:2] == ["compute", "tpus"], args
kind, verb, name = args[2:5]
flags = [a for a in args[5:] if a.startswith("--")]
with open(folder / "calls", "a") as f:
  f.write(json.dumps(args[2:]) + "\\n")

def answer(file):
  # The next line of a script; its last line for ever.
  lines = (folder / file).read_text().splitlines()
  if len(lines) > 1:
    (folder / file).write_text("\\n".join(lines[1:]))
  return lines[0]

if verb == "describe":
  state = answer("states")
  if state == "ABSENT":
    sys.exit("ERROR: (gcloud.compute.tpus) NOT_FOUND: Resource 'sml' was not found")
  if state == "UNREACHABLE":
    sys.exit("ERROR: gcloud crashed (TransportError): no network")
  print(state)
elif verb == "scp":
  shutil.copy(args[4], folder / "home")
elif verb == "ssh":
  command = next(f.removeprefix("--command=") for f in flags if f.startswith("--command="))
  if "follow" in command and (folder / "lost").exists() and answer("lost") == "255":
    sys.exit(255)
  home = str(folder / "home")
  sys.exit(subprocess.run(["bash", "-c", command], cwd=home, env=os.environ | {{"HOME": home}}).returncode)
"""

PYTHON = """\
#!/usr/bin/env bash
# Stands for the venv's Python: notes its arguments; leaves on SIGTERM as the program does; ends as EXIT says.
printf '%s\\n' "$@" "--" >> "$FAKE/python"
[[ $2 == sml_jax.main ]] || exit 0
trap 'echo saved; exit 143' TERM
echo "training, said the program"
if [[ -e $FAKE/long ]]; then touch "$FAKE/started"; while true; do sleep 0.05; done; fi
exit "$(cat "$FAKE/exit")"
"""


class Slice:
  """What the tests look at: the calls of gcloud, the worker's home, and what its Python was given."""

  def __init__(self, folder: pathlib.Path):
    self.folder, self.home, self.checkout = folder, folder / "home", folder / "checkout"
    for name, text in (("bin/gcloud", GCLOUD), ("home/sml_venv/bin/python", PYTHON)):
      path = folder / name
      path.parent.mkdir(parents=True)
      path.write_text(text)
      path.chmod(0o755)
    self.checkout.mkdir()
    shutil.copytree(ROOT / "launch", self.checkout / "launch")
    (self.checkout / "configs").mkdir()
    (self.checkout / "configs" / "some.py").write_text("")
    shutil.copy(ROOT / "requirements.txt", self.checkout)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(self.checkout)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
      subprocess.run([*git, *command], check=True)
    self.plan("ABSENT", "ACTIVE")
    (folder / "exit").write_text("0")

  def plan(self, *states: str) -> None:
    (self.folder / "states").write_text("\n".join(states))

  def start(self, *args: str, **options) -> subprocess.Popen:
    environment = os.environ | {
        "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "FAKE": str(self.folder), "SML_POLL_SECONDS": "0"}
    return subprocess.Popen(
        ["bash", str(self.checkout / "launch" / "tpu_vm.sh"), *args], cwd=self.folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

  def __call__(self, *args: str) -> subprocess.CompletedProcess:
    process = self.start(*args)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(args, process.returncode, out, err)

  @property
  def calls(self) -> list[str]:
    """Verb and, of an ssh, what was done there: "create", "ssh run", ..."""
    file = self.folder / "calls"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    words = []
    for args in lines:
      command = next((a for a in args if a.startswith("--command=")), "")
      known = [w for w in ("install", "run", "follow", "status", "stop", "tar") if w in command.split()]
      words.append(" ".join([args[1], *known]))
    return [w for w in words if w != "describe"]

  @property
  def runs(self) -> list[list[str]]:
    text = (self.folder / "python").read_text()
    return [run.splitlines() for run in text.split("--\n") if run.startswith("-m\nsml_jax.main")]


@pytest.fixture
def tpu(tmp_path) -> Slice:
  return Slice(tmp_path)


NAMED = ("--name=sml", "--zone=us-east5-a")
WHAT = ("--config=configs/some.py", "--workdir=gs://bucket/run")
ALL = ("all", *NAMED, "--type=v6e-16", *WHAT)
PREPARED = ["create", "scp", "ssh tar", "ssh install", "ssh run"]


def test_scripts_pass_shellcheck():
  shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")
  done = subprocess.run([shellcheck, *SCRIPTS], cwd=ROOT, text=True, capture_output=True)
  assert done.returncode == 0, done.stdout


def test_dry_run_prints_what_would_be_run_and_runs_nothing(tpu):
  done = tpu(*ALL, "--project=p", "--spot", "--dry_run", "--", "--config.seed=1", "--config.note=it's $HOME")
  at = "--zone=us-east5-a --project=p"
  ssh = "gcloud compute tpus tpu-vm ssh sml --worker="
  end = f"--quiet {at}"
  run = "bash sml_jax/launch/worker.sh run --config=configs/some.py --workdir=gs://bucket/run --config.seed=1 "
  run += "'--config.note=it'\\''s $HOME'"
  assert done.returncode == 0, done.stderr
  assert [shlex.split(line) for line in done.stdout.splitlines()] == [shlex.split(line) for line in (
      f"gcloud compute tpus queued-resources describe sml '--format=value(state.state)' {at}",
      f"gcloud compute tpus queued-resources create sml --node-id=sml --accelerator-type=v6e-16 "
      f"--runtime-version=v2-alpha-tpuv6e --spot {at}",
      f"git -C {tpu.checkout} archive --output=sml_jax.tar.gz HEAD",
      f"gcloud compute tpus tpu-vm scp sml_jax.tar.gz sml: --worker=all {end}",
      f"{ssh}all '--command=rm -rf sml_jax && mkdir sml_jax && tar -xzf sml_jax.tar.gz -C sml_jax' {end}",
      f"{ssh}all '--command=bash sml_jax/launch/worker.sh install' {end}",
      f"{ssh}all {shlex.quote('--command=' + run)} {end}",
      f"{ssh}0 '--command=bash sml_jax/launch/worker.sh follow' {end}",
  )]  # fmt: skip
  assert tpu.calls == []


@pytest.mark.parametrize("args, printed", [
    (("create", "--vm", "--type=v5litepod-4"),
     "tpu-vm create sml --accelerator-type=v5litepod-4 --version=v2-alpha-tpuv5-lite"),
    (("create", "--vm", "--type=v4-8", "--runtime=mine"), "tpu-vm create sml --accelerator-type=v4-8 --version=mine"),
    (("create", "--type=v5p-128"), "queued-resources create sml --node-id=sml --accelerator-type=v5p-128 "
                                   "--runtime-version=v2-alpha-tpuv5"),
    (("delete",), "queued-resources delete sml --force --quiet"),
    (("delete", "--vm"), "tpu-vm delete sml --quiet"),
    (("stop",), "tpu-vm ssh sml --worker=all '--command=bash sml_jax/launch/worker.sh stop' --quiet"),
    (("status",), "tpu-vm ssh sml --worker=all '--command=bash sml_jax/launch/worker.sh status' --quiet"),
])  # fmt: skip
def test_dry_run_of_one_command(tpu, args, printed):
  last = tpu(*args, *NAMED, "--dry_run").stdout.splitlines()[-1]
  assert shlex.split(last) == shlex.split(f"gcloud compute tpus {printed} --zone=us-east5-a")


@pytest.mark.parametrize("args, line", [
    ((), "no command"),
    (("fly", *NAMED), "unknown command fly"),
    (("run", "create"), "two commands, run and create"),
    (("run", "--name=sml"), "run needs --name and --zone"),
    (("run", *NAMED, "--config.seed=1"), "unknown flag --config.seed=1"),
    (("run", *NAMED, "--config="), "--config= has no value"),
    (("run", *NAMED), "run needs --config and --workdir"),
    (("run", *NAMED, "--config=configs/no.py", "--workdir=gs://b"), "--config=configs/no.py: no such file"),
    (("run", *NAMED, "--config=configs/some.py", "--workdir=runs/x"), "--workdir=runs/x: must be on gs://"),
    (("create", *NAMED), "create needs --type"),
    (("create", *NAMED, "--type=h100-8"), "no runtime version known for --type=h100-8"),
    (("run", *NAMED, *WHAT, "--retry"), "--retry goes with all"),
    (("all", *NAMED, "--type=v6e-8", "--retry", "--config=configs/some.py", "--workdir=/nfs/x"), "--retry needs a"),
])  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tpu, args, line):
  done = tpu(*args)
  assert done.returncode == 2 and done.stdout == ""
  assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1
  assert tpu.calls == []


def test_all_runs_the_program_with_the_arguments_as_given_and_ends_as_it_does(tpu):
  odd = ["--config.a=it's", "--config.b=$HOME `id` \"x\"", "--config.c=('math', 'code')"]
  (tpu.folder / "exit").write_text("1")
  done = tpu(*ALL, "--", *odd)
  assert done.returncode == 1 and "training, said the program" in done.stdout, done.stderr
  assert tpu.calls == [*PREPARED, "ssh follow"]
  assert tpu.runs == [["-m", "sml_jax.main", *WHAT, *odd]]
  assert (tpu.home / "sml_jax" / "launch" / "worker.sh").exists()
  jax = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("jax=="))
  assert f"requirements.txt\njax[tpu]{jax.removeprefix('jax')}\n" in (tpu.folder / "python").read_text()


def test_create_waits_and_does_not_ask_twice(tpu):
  tpu.plan("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
  assert tpu("create", *NAMED, "--type=v6e-16").returncode == 0
  assert tpu.calls == []
  tpu.plan("FAILED")
  done = tpu("create", *NAMED, "--type=v6e-16")
  assert done.returncode == 1 and "sml is FAILED; delete it first" in done.stderr
  assert tpu.calls == []


def test_retry_asks_for_another_slice_and_runs_the_same_command(tpu):
  """The first slice is lost while the run is followed, the second before anything could be copied to it."""
  tpu.plan("ABSENT", "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED", "SUSPENDED",  # create; follow; lost; delete
           "ABSENT", "PROVISIONING", "SUSPENDED", "SUSPENDED", "SUSPENDED",  # create; lost; delete
           "ABSENT", "ACTIVE")  # fmt: skip
  (tpu.folder / "lost").write_text("255\n255\n0")
  done = tpu(*ALL, "--spot", "--retry", "--", "--config.seed=3")
  assert done.returncode == 0, done.stderr
  again = "ssh follow"
  assert tpu.calls == [*PREPARED, again, again, "delete", "create", "delete", *PREPARED, again]
  assert tpu.runs == [["-m", "sml_jax.main", *WHAT, "--config.seed=3"]] * 2
  assert "attempt 3" in done.stderr


def test_a_lost_connection_is_not_a_lost_slice(tpu):
  (tpu.folder / "lost").write_text("255\n0")
  tpu.plan("ABSENT", "ACTIVE", "UNREACHABLE")
  done = tpu(*ALL, "--retry")
  assert done.returncode == 0 and "connection lost" in done.stderr
  assert tpu.calls == [*PREPARED, "ssh follow", "ssh follow"]


@pytest.mark.parametrize("code", [1, 143])
def test_retry_does_not_repeat_a_run_that_ended_on_a_sound_slice(tpu, code):
  (tpu.folder / "exit").write_text(str(code))
  assert tpu(*ALL, "--retry").returncode == code
  assert tpu.calls == [*PREPARED, "ssh follow"]


def test_stop_reaches_the_program_and_run_does_not_start_it_twice(tpu):
  tpu.plan("ACTIVE")
  (tpu.folder / "long").touch()
  assert tpu("copy", *NAMED).returncode == 0
  early = tpu("follow", *NAMED)
  assert early.returncode == 1 and "error: no run was started here" in early.stderr
  for _ in range(2):
    assert tpu("run", *NAMED, *WHAT).returncode == 0
  assert "running" in tpu("status", *NAMED).stdout
  following = tpu.start("follow", *NAMED)
  while not (tpu.folder / "started").exists():
    pass
  assert tpu("stop", *NAMED).returncode == 0
  out, _ = following.communicate(timeout=60)
  assert following.returncode == 143 and out.splitlines()[-1] == "saved"
  assert len(tpu.runs) == 1
  assert "ended with exit code 143" in tpu("status", *NAMED).stdout


def test_install_where_the_machine_has_an_old_python(tpu):
  """As most TPU images: python3 is 3.10, and uv brings another."""
  tpu.plan("ACTIVE")
  shutil.rmtree(tpu.home / "sml_venv")
  (tpu.folder / "bin" / "python3").write_text("""\
#!/usr/bin/env bash
[[ $1 == -c ]] && exit 1
echo "$@" >> "$FAKE/python3"
[[ "$2 $3" == "uv venv" ]] || exit 0
mkdir -p "$HOME/sml_venv/bin"
cp "$FAKE/venv_python" "$HOME/sml_venv/bin/python"
""")
  (tpu.folder / "bin" / "python3").chmod(0o755)
  (tpu.folder / "venv_python").write_text(PYTHON)
  (tpu.folder / "venv_python").chmod(0o755)
  assert tpu("copy", *NAMED).returncode == 0
  for _ in range(2):
    assert tpu("install", *NAMED).returncode == 0
  steps = (tpu.folder / "python3").read_text().splitlines()
  assert [s.split()[:3] for s in steps] == [["-m", "pip", "install"], ["-m", "uv", "venv"]]
  assert (tpu.folder / "python").read_text().count("etils[epath-gcs]") == 2
