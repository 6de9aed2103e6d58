#!/usr/bin/env bash
# Ask a running inspection API what it should answer: its health, one scan, and a request that it must refuse.
#   bash scripts/test_api.sh [IMAGE]        API_URL (default http://localhost:8080) names the API
# A closed server wants a key of the role officer or supervisor in API_KEY.
# Exit code 0 when every answer is as expected, 1 when one is not, 2 when there is no API or no image.
set -euo pipefail
if [[ $# -gt 0 ]]; then set -- "$(realpath "$1")"; fi # before the script changes its folder
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

API_URL="${API_URL:-http://localhost:8080}"
IMAGE="${1:-data/stcray/test/images/000000.jpg}"
WAIT_S="${WAIT_S:-60}"
SCAN_ID="TEST-$(date +%s)-$$" # a name stands for one scan: another image under it would be refused
failed=0

expect() { # expect WHAT FOUND WANTED
    if [[ "$2" == "$3" ]]; then
        echo "ok    $1: $2"
    else
        echo "FAIL  $1: $2, expected $3"
        failed=1
    fi
}

field() { # field FILE KEY: a value of a JSON object, as JSON
    python -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1])).get(sys.argv[2])))' "$1" "$2"
}

if [[ ! -f "$IMAGE" ]]; then
    echo "error: no image $IMAGE; name one, or make scans: xray-vqa data synth --help" >&2
    exit 2
fi
work_dir="$(mktemp -d)"
trap 'rm -rf "$work_dir"' EXIT
# In a file that nobody else can read: the arguments of a command are seen by every user of the machine.
printf 'silent\n' >"$work_dir/curl.conf"
if [[ -n "${API_KEY:-}" ]]; then
    printf 'header = "Authorization: Bearer %s"\n' "$API_KEY" >>"$work_dir/curl.conf"
fi
ask() { curl -K "$work_dir/curl.conf" "$@"; }

echo "waiting for $API_URL/ready (up to $WAIT_S s)"
status=000
for ((waited = 0; waited < WAIT_S; waited++)); do
    status="$(ask -o "$work_dir/ready.json" -w '%{http_code}' --max-time 5 "$API_URL/ready" || true)"
    if [[ "$status" == 200 ]]; then break; fi
    sleep 1
done
if [[ "$status" == 000 ]]; then
    echo "error: nothing answers at $API_URL; start it: bash scripts/deploy_inference.sh" >&2
    exit 2
fi
python -m json.tool "$work_dir/ready.json"
expect "/ready" "$status" 200

status="$(ask -o "$work_dir/health.json" -w '%{http_code}' "$API_URL/health")"
expect "/health" "$status" 200

# The body goes through a file: an argument of a command may have no more than 128 KiB on Linux.
{
    printf '{"scan_id": "%s", "declared_items": ["clothing", "electronics"], "image_base64": "' "$SCAN_ID"
    base64 <"$IMAGE" | tr -d '\n'
    printf '"}'
} >"$work_dir/request.json"
status="$(ask -o "$work_dir/answer.json" -w '%{http_code}' -X POST "$API_URL/api/v1/inspect" \
    -H "Content-Type: application/json" --data-binary "@$work_dir/request.json")"
python -m json.tool "$work_dir/answer.json"
expect "/api/v1/inspect" "$status" 200
expect "its scan_id" "$(field "$work_dir/answer.json" scan_id)" "\"$SCAN_ID\""
expect "its degraded" "$(field "$work_dir/answer.json" degraded)" false

status="$(ask -o "$work_dir/record.json" -w '%{http_code}' "$API_URL/api/v1/inspections/$SCAN_ID")"
expect "its record" "$status" 200

status="$(ask -o "$work_dir/problem.json" -w '%{http_code}' -X POST "$API_URL/api/v1/inspect" \
    -H "Content-Type: application/json" --data '{"scan_id": "TEST-002", "image_base64": "bm8gaW1hZ2U="}')"
python -m json.tool "$work_dir/problem.json"
expect "a scan that is no image" "$status" 422
expect "its code" "$(field "$work_dir/problem.json" code)" '"not_an_image"'

exit "$failed"
