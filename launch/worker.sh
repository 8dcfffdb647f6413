#!/usr/bin/env bash
# What launch/tpu_vm.sh does on each worker of a slice: install, run ARGUMENT .., follow, status, stop.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
log=~/sml_jax.log pid=~/sml_jax.pid code=~/sml_jax.exit venv=~/sml_venv

running() { [[ -s $pid ]] && kill -0 "$(<"$pid")" 2>/dev/null; }

case ${1:-} in
  install)
    if [[ ! -x $venv/bin/python ]]; then
      if python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python3 -m venv "$venv"
      else  # most TPU images have Python 3.10; uv brings another
        python3 -m pip install --quiet --user uv
        python3 -m uv venv --quiet --seed --python=3.11 "$venv"
      fi
    fi
    jax=$(sed -n 's/^jax==//p' requirements.txt)
    "$venv/bin/python" -m pip install --quiet -r requirements.txt "jax[tpu]==$jax" 'etils[epath-gcs]'
    ;;
  run)
    if running; then echo "it runs already"; exit 0; fi
    rm -f "$pid" "$code"
    # In a session of its own, so that it outlives the ssh connection.
    setsid nohup bash launch/worker.sh supervise "${@:2}" </dev/null >>"$log" 2>&1 &
    until [[ -s $pid ]]; do sleep 0.1; done
    ;;
  supervise)
    PYTHONUNBUFFERED=1 "$venv/bin/python" -m sml_jax.main "${@:2}" &
    echo $! >"$pid"
    result=0
    wait $! || result=$?
    echo "$result" >"$code"
    ;;
  follow)  # exit codes of the run are told by adding 100, apart from those that ssh and gcloud may end with
    [[ -s $pid ]] || { echo "error: no run was started here" >&2; exit 101; }
    tail -n 1000 -s 0.2 -F --pid="$(<"$pid")" "$log"
    for _ in {1..100}; do [[ -s $code ]] && break; sleep 0.1; done
    [[ -s $code ]] || { echo "error: the run ended without a word; see $log" >&2; exit 101; }
    result=$(<"$code")
    exit $((result ? result + 100 : 0))
    ;;
  status)
    if running; then
      echo "running"
    elif [[ -s $code ]]; then
      echo "ended with exit code $(<"$code")"
    else
      echo "no run"
    fi
    ;;
  stop)
    if running; then kill -TERM "$(<"$pid")"; else echo "no run"; fi
    ;;
  *)
    echo "usage: launch/worker.sh install | run ARGUMENT .. | follow | status | stop" >&2
    exit 2
    ;;
esac
