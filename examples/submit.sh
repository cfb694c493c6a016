#!/bin/sh
# One job. The idempotency key makes it safe to run this again when no answer came.
# Usage: RELAY_API_KEY=… examples/submit.sh "prompt" CALLBACK_URL
set -eu
: "${RELAY_API_KEY:?set it to your API key}"
: "${1:?usage: submit.sh PROMPT CALLBACK_URL}" "${2:?usage: submit.sh PROMPT CALLBACK_URL}"
job=$(python3 -c 'import json, sys; print(json.dumps({"scraper": "chatgpt", "prompt": sys.argv[1], "callback_url": sys.argv[2]}))' "$1" "$2")
curl --fail-with-body --silent --show-error "${RELAY_URL:-http://127.0.0.1:8080}/v1/jobs" \
  --header "Authorization: Bearer $RELAY_API_KEY" \
  --header "Content-Type: application/json" \
  --header "Idempotency-Key: $(printf '%s' "$1$2" | sha256sum | cut -c1-64)" \
  --data "$job"
