#!/usr/bin/env bash
# Builds .venv from a lock file. Usage: scripts/setup.sh run|dev
# Finds Python 3.12 or newer by itself: through uv where it works, else on the PATH (through pyenv too).
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-run}
case "$kind" in
  run) lock=requirements.lock ;;
  dev) lock=requirements-dev.lock ;;
  *) echo "setup: expected run or dev, got '$kind'" >&2; exit 2 ;;
esac

stamp=.venv/.installed-$kind
want=$(cat "$lock" requirements-nodeps.lock pyproject.toml | sha256sum | cut -d' ' -f1)
# The dev lock holds everything the run lock does, so a dev environment serves both.
for have in "$stamp" .venv/.installed-dev; do
  if [ -f "$have" ] && [ "$(cut -d' ' -f1 "$have")" = "$want" ]; then exit 0; fi
  if [ "$kind" = run ] && [ -f "$have" ] && [ "$(cut -d' ' -f2 "$have")" = "$want" ]; then exit 0; fi
done

ok() { "$@" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; }

if [ ! -x .venv/bin/python ] || ! ok .venv/bin/python; then
  rm -rf .venv
  # A pyenv shim answers "command not found" for what the selected version lacks. So try it; do not trust its presence.
  if uv --version >/dev/null 2>&1 && uv venv --quiet --no-python-downloads --python '>=3.12' .venv 2>/dev/null; then
    echo "setup: .venv made by uv with $(.venv/bin/python --version)"
  else
    python=
    for candidate in python3.13 python3.12 python3.14 python3; do
      if ok "$candidate"; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
      echo "setup: expected Python 3.12 or newer, found none (tried uv, python3.13, python3.12, python3.14, python3)." >&2
      echo "setup: install one, e.g. 'uv python install 3.12', 'pyenv install 3.12' or your system's python3.12 package." >&2
      exit 1
    fi
    "$python" -m venv .venv
    echo "setup: .venv made with $(.venv/bin/python --version)"
  fi
fi

if uv --version >/dev/null 2>&1; then
  uv=(uv)
else
  if [ ! -x .venv/bin/uv ]; then
    one=$(mktemp)
    sed -n '/^uv==/,/^[a-z].*==/p' requirements-dev.lock | sed '1!{/^[a-z].*==/,$d}' >"$one"
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip -q
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$one"
    rm -f "$one"
  fi
  uv=(.venv/bin/uv)
fi

"${uv[@]}" pip install --quiet --python .venv/bin/python --require-hashes -r "$lock"
if [ "$kind" = dev ]; then
  "${uv[@]}" pip install --quiet --python .venv/bin/python --no-deps --require-hashes -r requirements-nodeps.lock
fi
# The project itself, editable. A .pth file is enough, and needs no build backend in a user's environment.
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pwd >"$site/ev_battery_fleet_twin.pth"
# Our folders come first, so that an installed package of the same name does not replace one of them.
printf '#!%s/.venv/bin/python\nimport sys\n\nsys.path.insert(0, "%s")\nfrom twin.__main__ import main\n\nmain()\n' "$(pwd)" "$(pwd)" >.venv/bin/twin
chmod +x .venv/bin/twin
# Compile to byte code now, in parallel. Otherwise every process of Ray compiles some 2,500 files, and does so each time
# if Python is told not to write byte code. A run needs Ray and what our own imports load; testing needs everything.
if [ "$kind" = dev ]; then
  .venv/bin/python -m compileall -q -j 0 "$site" || true
else
  .venv/bin/python -m compileall -q -j 0 "$site/ray" || true
  env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c \
    'import actors.prediction.feeder_actor, actors.prediction.pool, twin.cli, twin.fleet, twin.show.report' || true
fi
run_want=$(cat requirements.lock requirements-nodeps.lock pyproject.toml | sha256sum | cut -d' ' -f1)
echo "$want $run_want" >"$stamp"
echo "setup: .venv holds what $lock names"
