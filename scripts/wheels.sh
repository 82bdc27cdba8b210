#!/usr/bin/env bash
# Fetches the wheels of requirements.lock, and uv's, for an image that is built without a network.
# Usage: scripts/wheels.sh [FOLDER [PYTHON]]; by default into `wheels`, for python3.12.
set -euo pipefail
folder=$(realpath -m "${1:-wheels}")
cd "$(dirname "$0")/.."

locks=$(mktemp)
trap 'rm -f "$locks"' EXIT
cat requirements.lock >"$locks"
sed -n '/^uv==/,/^[a-z].*==/p' requirements-dev.lock | sed '1!{/^[a-z].*==/,$d}' >>"$locks"
"${2:-python3.12}" -m pip download --quiet --no-deps --require-hashes --only-binary=:all: --dest "$folder" -r "$locks"
