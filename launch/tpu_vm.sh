#!/usr/bin/env bash
# Runs sml_jax on a Cloud TPU slice, from your own machine; --help says how. On the workers, launch/worker.sh does it.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh COMMAND --name=NAME --zone=ZONE [FLAG ...] [-- ARGUMENT ...]

  create   asks for the slice and waits for it: a queued resource, or with --vm a TPU VM at once (needs --type)
  copy     puts the last commit of this checkout on all workers, in ~/sml_jax
  install  makes ~/sml_venv on all workers: requirements.txt, jax[tpu] of the same version, what gs:// needs
  run      starts `python -m sml_jax.main --config=.. --workdir=.. ARGUMENT ..` on all workers; it outlives this shell
  follow   shows the log of worker 0 and ends with the exit code of the run; interrupt it as you like, the run goes on
  status   the state of the slice, and of the run on each worker
  stop     tells the run to leave: it saves, and `run` goes on from there
  delete   gives the slice back
  all      create, copy, install, run, follow; the slice stays until you delete it

  --name=NAME        of the slice             --zone=ZONE        such as us-east5-a
  --type=TYPE        such as v5p-128, v6e-8   --project=PROJECT  default: that of gcloud
  --config=FILE      such as configs/gemma3_12b_omni_math.py
  --workdir=DIR      on gs://, or a folder that all workers share
  --runtime=VERSION  software of the VM; default: the one for the type
  --spot             cheaper, and may be taken away at any time
  --retry            with `all`: a slice that was taken away is deleted and asked for again, until the run is done
  --vm               no queued resource
  --dry_run          prints the gcloud commands and runs none

Every command may be given again. Exit codes: those of the run (0 done, 1 bad input, 143 told to leave),
2 usage, 255 no word from the slice.

  launch/tpu_vm.sh all --name=sml --zone=us-east5-a --type=v5p-128 --spot --retry \
    --config=configs/gemma3_12b_omni_math.py --workdir=gs://BUCKET/gemma3_12b -- --config.seed=1
TEXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
poll=${SML_POLL_SECONDS:-30}
command='' name='' zone='' project='' type='' config='' workdir='' runtime='' spot='' retry='' vm='' dry_run=''
arguments=()
lost=255  # the exit code where the slice, and not the run, is what failed

say() { [[ -n $dry_run ]] || printf '%s\n' "tpu_vm: $*" >&2; }
fail() { printf '%s\n' "error: $*" >&2; exit 2; }

parse() {
  while (($#)); do
    case $1 in
      --help | -h) usage; exit 0 ;;
      --name=* | --zone=* | --project=* | --type=* | --config=* | --workdir=* | --runtime=*)
        local key=${1%%=*}
        [[ -n ${1#*=} ]] || fail "$key= has no value"
        printf -v "${key#--}" %s "${1#*=}" ;;
      --spot | --retry | --vm | --dry_run) printf -v "${1#--}" %s yes ;;
      --) shift; arguments=("$@"); break ;;
      -*) fail "unknown flag $1; launch/tpu_vm.sh --help lists them, and --config.KEY=VALUE goes behind --" ;;
      *) [[ -z $command ]] || fail "two commands, $command and $1"; command=$1 ;;
    esac
    shift
  done
}

check() {
  [[ -n $command ]] || fail "no command; launch/tpu_vm.sh --help lists them"
  [[ $command =~ ^(create|copy|install|run|follow|status|stop|delete|all)$ ]] ||
    fail "unknown command $command; launch/tpu_vm.sh --help lists them"
  [[ -n $name && -n $zone ]] || fail "$command needs --name and --zone"
  [[ -z $retry || $command == all ]] || fail "--retry goes with all, not with $command"
  if [[ $command =~ ^(create|all)$ ]]; then
    [[ -n $type ]] || fail "$command needs --type, such as v6e-8"
    [[ -n $runtime ]] || runtime=$(default_runtime)
  fi
  if [[ $command =~ ^(run|all)$ ]]; then
    [[ -n $config && -n $workdir ]] || fail "$command needs --config and --workdir"
    [[ -f $root/${config%%:*} ]] || fail "--config=$config: no such file in $root"
    [[ $workdir == gs://* || $workdir == /* ]] ||
      fail "--workdir=$workdir: must be on gs://, or a full path to a folder that all workers share"
    [[ -z $retry || $workdir == gs://* ]] ||
      fail "--retry needs a --workdir on gs://: a slice that is taken away takes its disks along"
  fi
}

default_runtime() {
  case $type in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-* | v5e-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) fail "no runtime version known for --type=$type; give --runtime=VERSION" ;;
  esac
}

quoted() {  # a word as a shell reads it (not printf %q, whose backslashes nobody can read)
  if [[ $1 =~ ^[A-Za-z0-9_./:=@,+-]+$ ]]; then printf %s "$1"; else
    printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"
  fi
}

perform() {  # runs a command or, with --dry_run, prints it
  local word line=''
  if [[ -n $dry_run ]]; then
    for word; do line+=" $(quoted "$word")"; done
    printf '%s\n' "${line# }" >&3
  else
    "$@" </dev/null
  fi
}

gc() { perform gcloud compute tpus "$@" --zone="$zone" ${project:+--project="$project"}; }

on() {  # on WORKER COMMAND: runs it there
  gc tpu-vm ssh "$name" --worker="$1" --command="$2" --quiet
}

state() {  # ABSENT, UNKNOWN, or gcloud's word for it
  local answer errors
  errors=$(mktemp)
  if [[ -n $vm ]]; then
    answer=$(gc tpu-vm describe "$name" '--format=value(state)' 2>"$errors") || answer=
  else
    answer=$(gc queued-resources describe "$name" '--format=value(state.state)' 2>"$errors") || answer=
  fi
  if [[ -n $dry_run ]]; then
    answer=ABSENT
  elif [[ -z $answer ]] && grep -q NOT_FOUND "$errors"; then
    answer=ABSENT
  elif [[ -z $answer ]]; then  # no network, no permission: not a reason to delete anything
    cat "$errors" >&2
    answer=UNKNOWN
  fi
  rm -f "$errors"
  echo "$answer"
}

ready() { [[ $1 == ACTIVE || $1 == READY ]]; }
gone() { [[ $1 =~ ^(ABSENT|DELETING|FAILED|PREEMPTED|STOPPED|STOPPING|SUSPENDED|SUSPENDING|TERMINATED)$ ]]; }

create() {
  local now
  now=$(state)
  [[ $now != UNKNOWN ]] || return 1
  if [[ $now == ABSENT ]]; then
    if [[ -n $vm ]]; then
      gc tpu-vm create "$name" --accelerator-type="$type" --version="$runtime" ${spot:+--spot} || return
    else
      gc queued-resources create "$name" --node-id="$name" --accelerator-type="$type" \
        --runtime-version="$runtime" ${spot:+--spot} || return
    fi
    [[ -z $dry_run ]] || return 0
    now=$(state)
  fi
  until ready "$now"; do
    if gone "$now"; then
      say "$name is $now; delete it first"
      return 1
    fi
    say "$name is $now; waiting"
    sleep "$poll"
    now=$(state)
  done
  say "$name is $now"
}

copy() {
  local archive=sml_jax.tar.gz tries=10
  if [[ -z $dry_run ]]; then
    [[ -z $(git -C "$root" status --porcelain) ]] || say "what is not committed is not copied"
    archive=$(mktemp -d)/$archive
  fi
  perform git -C "$root" archive --output="$archive" HEAD || return
  # A slice that is ready may let nobody in for a minute yet.
  until gc tpu-vm scp "$archive" "$name:" --worker=all --quiet; do
    if ((--tries == 0)) || gone "$(state)"; then return 1; fi
    sleep "$poll"
  done
  [[ -n $dry_run ]] || rm -r "$(dirname "$archive")"
  on all 'rm -rf sml_jax && mkdir sml_jax && tar -xzf sml_jax.tar.gz -C sml_jax'
}

install() { on all 'bash sml_jax/launch/worker.sh install'; }

run() {
  local word line="bash sml_jax/launch/worker.sh run"
  for word in --config="$config" --workdir="$workdir" ${arguments[@]+"${arguments[@]}"}; do
    line+=" $(quoted "$word")"
  done
  on all "$line"
}

follow() {
  local code
  while true; do
    code=0
    on 0 'bash sml_jax/launch/worker.sh follow' || code=$?
    ((code != 0)) || return 0
    # worker.sh adds 100. Anything else is ssh's or gcloud's, and says nothing about the run.
    if ((code >= 100 && code < 255)); then return $((code - 100)); fi
    if gone "$(state)"; then return "$lost"; fi
    say "connection lost; following again"
    sleep "$poll"
  done
}

status() {
  local now
  now=$(state)
  say "$name is $now"
  if [[ -z $dry_run ]] && ! ready "$now"; then return 0; fi
  on all 'bash sml_jax/launch/worker.sh status'
}

stop() { on all 'bash sml_jax/launch/worker.sh stop'; }

delete() {
  if [[ -z $dry_run && $(state) == ABSENT ]]; then
    say "there is no $name"
    return 0
  fi
  if [[ -n $vm ]]; then
    gc tpu-vm delete "$name" --quiet
  else
    gc queued-resources delete "$name" --force --quiet
  fi
}

taken_away() {  # whether the slice is gone; it may take minutes until gcloud knows
  local checks=10
  until gone "$(state)"; do
    if ((--checks == 0)); then return 1; fi
    sleep "$poll"
  done
}

all() {
  local code number=1
  while true; do
    code=0
    if create && copy && install && run; then follow || code=$?; else code=$lost; fi
    if [[ -z $retry || $code == 0 ]] || ! taken_away; then break; fi
    number=$((number + 1))
    say "$name was taken away; attempt $number"
    delete || true  # it is tried again: create fails as long as there is something to delete
    sleep "$poll"
  done
  say "ended with exit code $code; to give the slice back: launch/tpu_vm.sh delete --name=$name --zone=$zone"
  return "$code"
}

exec 3>&1
parse "$@"
check
[[ -n $dry_run ]] || command -v gcloud >/dev/null ||
  fail "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
"$command"
