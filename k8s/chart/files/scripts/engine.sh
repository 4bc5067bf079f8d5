#!/bin/sh
# Start vLLM by the plan. Arguments: further ones of `vllm serve`, which win over the plan's.
set -eu

# The guard and vLLM share a key that lives as long as this pod; clients' keys are in QWENHOST_KEY_FILE.
VLLM_API_KEY="$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
export VLLM_API_KEY

plan="${QWENHOST_PLAN_DIR:-/plan}"
if [ -f "$plan/env" ]; then
  set -a
  # shellcheck disable=SC1091
  . "$plan/env"
  set +a
fi

# Compiled kernels: a folder for each vLLM, GPU and tensor parallelism. The first pod that comes writes to it and
# holds the lock as long as vLLM runs (descriptor 9); another one works on a copy.
if [ -f "$plan/cache-key" ]; then QWENHOST_CACHE_KEY="$(cat "$plan/cache-key")"; fi
shared="${QWENHOST_CACHE_DIR:-/cache}/${QWENHOST_CACHE_KEY:-default}"
mkdir -p "$shared"
compiled="$shared"
exec 9>"$shared/.writer"
if ! flock -n 9; then
  exec 9>&-
  compiled="${TMPDIR:-/tmp}/compiled"
  mkdir -p "$compiled"
  cp -R "$shared/." "$compiled/" || echo "the compile cache could not be copied, starting without" >&2
fi
export VLLM_CACHE_ROOT="$compiled/vllm" TRITON_CACHE_DIR="$compiled/triton"
export TORCHINDUCTOR_CACHE_DIR="$compiled/inductor" FLASHINFER_WORKSPACE_BASE="$compiled/flashinfer"

nodes="${LWS_GROUP_SIZE:-1}"
if [ "$nodes" -gt 1 ]; then
  if [ "${QWENHOST_MULTI_NODE:-mp}" = ray ]; then
    if [ "$LWS_WORKER_INDEX" != 0 ]; then
      exec ray start --address="$LWS_LEADER_ADDRESS:6379" --node-ip-address="$VLLM_HOST_IP" --block
    fi
    ray start --head --port=6379 --node-ip-address="$VLLM_HOST_IP" --include-dashboard=false
    # vLLM takes the nodes that are there when it starts.
    while [ "$(python3 -c 'import ray; ray.init(address="auto", log_to_driver=False); print(sum(n["Alive"] for n in ray.nodes()))' 2>/dev/null | tail -n 1)" != "$nodes" ]; do
      echo "waiting for $nodes nodes of the Ray cluster" >&2
      sleep 5
    done
    set -- --distributed-executor-backend ray "$@"
  else
    set -- --nnodes "$nodes" --node-rank "$LWS_WORKER_INDEX" --master-addr "$LWS_LEADER_ADDRESS" \
      --master-port "$QWENHOST_MASTER_PORT" "$@"
    if [ "$LWS_WORKER_INDEX" != 0 ]; then set -- "$@" --headless; fi
  fi
fi

exec vllm serve --config "$plan/vllm.yaml" "$@"
