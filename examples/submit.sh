#!/bin/sh
# One job. The idempotency key makes it safe to run this again when no answer came.
# Usage: RELAY_API_KEY=… examples/submit.sh "prompt" CALLBACK_URL
set -eu
prompt=$(printf '%s' "$1" | python3 -c 'import json, sys; print(json.dumps(sys.stdin.read()))')
curl --fail-with-body --silent --show-error "${RELAY_URL:-http://127.0.0.1:8080}/v1/jobs" \
  --header "Authorization: Bearer $RELAY_API_KEY" \
  --header "Content-Type: application/json" \
  --header "Idempotency-Key: $(printf '%s' "$1$2" | sha256sum | cut -c1-64)" \
  --data "{\"scraper\": \"chatgpt\", \"prompt\": $prompt, \"callback_url\": \"$2\"}"
