#!/bin/sh
# Wait until every folder given is marked complete. Outside the start-up budget, which begins with the engine.
set -eu

for folder in "$@"; do
  waited=0
  until [ -f "$folder/.complete" ]; do
    if [ $((waited % 60)) -eq 0 ]; then echo "waiting for the weights in $folder, ${waited} s"; fi
    sleep 5
    waited=$((waited + 5))
  done
  echo "$folder: complete"
done
