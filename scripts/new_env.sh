#!/usr/bin/env bash
# Writes cluster/.env of cluster/.env.example, for its owner only, with a random secret for each value that is empty.
set -euo pipefail
cd "$(dirname "$0")/../cluster"
umask 077

if [ -e .env ]; then
  echo "new_env: cluster/.env is there already, and the volumes know its secrets" >&2
  exit 1
fi
while IFS= read -r line; do
  case "$line" in
    [A-Z]*=) printf '%s%s\n' "$line" "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" ;;
    *) printf '%s\n' "$line" ;;
  esac
done <.env.example >.env
echo "new_env: wrote cluster/.env"
