#!/bin/sh
# Measure the endpoint and price what was measured; the report stays on the claim.
set -eu

until python3 -c "import os, ssl, urllib.request as u; u.urlopen(os.environ['URL'] + '/health', timeout=10, context=ssl._create_unverified_context() if os.environ['URL'].startswith('https') else None)" 2>/dev/null; do
  echo "waiting for $URL"
  sleep 15
done
mkdir -p "$REPORT"
cd "$REPORT"
measured=0
qwenhost probe "$URL" --model "$MODEL" --api-key-file /etc/qwenhost/keys/client-key --gpus "$GPUS" \
  --workload "$WORKLOAD" --concurrency "$CONCURRENCY" --duration "$DURATION" --save measurements.json || measured=$?
# 5: void, or a limit missed; what was measured is priced all the same and says so.
if [ "$measured" -ne 0 ] && [ "$measured" -ne 5 ]; then exit "$measured"; fi
qwenhost compare --gpus "$GPUS" --workload "$WORKLOAD" --measurements measurements.json \
  --save comparison.json --html report.html
echo "$REPORT: measurements.json comparison.json report.html"
