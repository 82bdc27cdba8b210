#!/usr/bin/env bash
# Makes a trained bundle the one that ships. Usage: scripts/take_bundle.sh FROM TO
set -euo pipefail
from=$1 to=$2
files="manifest.json rul_efc.ubj rul_days.ubj margin_efc.ubj margin_days.ubj failure.ubj kind.ubj split.json card.md"
for name in $files; do
  test -f "$from/$name" || { echo "expected a bundle with $name in $from" >&2; exit 2; }
done
rm -rf "$to"
mkdir -p "$to"
for name in $files; do cp "$from/$name" "$to"; done
if [ -f "$from/reference.json" ]; then cp "$from/reference.json" "$to"; fi
if [ -d "$from/reference" ]; then cp -r "$from/reference" "$to"; fi
echo "$to holds what $from holds"
