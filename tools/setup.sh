#!/bin/sh
# Make .venv hold exactly requirements.lock plus this checkout of ebmref; or, with the name of
# an extra of pyproject.toml (tools/setup.sh peers), add that to the .venv that stands.
# Needs Python 3.11 to 3.14; uses uv where it is, fetches it into the venv where it is not,
# and falls back on the venv's own pip. Always from a fresh folder, so that an
# interrupted or outdated installation is never taken for a whole one.
set -eu

fail() { echo "setup: $1" >&2; exit 1; }
# Whatever was said before, this is the line that is read.
not_installed() {
  fail "the packages were not installed; mostly that is the network or the package index (what was said stands above): make it again"
}

# Of newer ones not all pinned packages have wheels.
is_right() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; }

if [ "$(uname -s) $(uname -m)" = "Darwin x86_64" ]; then
  fail "there is no PyTorch of the pinned version for Macs with an Intel processor; any Linux, Windows with WSL, or a Mac with an Apple processor will do"
fi
python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
  if is_right "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  fail "no Python 3.11 to 3.14 found (looked for: ${PYTHON:-python3, python3.11 ... python3.14}); name one with make PYTHON=..."
fi

extra=${1:-}
if [ -n "$extra" ]; then
  # Nothing that the lock pins may move; it goes in as constraints, which take no hashes.
  grep -E '^[a-z0-9]' requirements.lock | sed 's/ \\$//' >.venv/constraints.txt
  if .venv/bin/python -m uv --version >/dev/null 2>&1; then
    install=".venv/bin/python -m uv pip install --quiet --python .venv/bin/python"
  elif command -v uv >/dev/null 2>&1; then
    install="uv pip install --quiet --python .venv/bin/python"
  else
    install=".venv/bin/python -m pip install --quiet --disable-pip-version-check"
  fi
  echo "setup: adding the extra '$extra' to .venv"
  $install --no-build-isolation -c .venv/constraints.txt -e ".[$extra]" || not_installed
  touch ".venv/$extra"
  exit
fi

rm -rf .venv
if command -v uv >/dev/null 2>&1; then
  uv venv --quiet --python "$("$python" -c 'import sys; print(sys.executable)')" .venv
  install="uv pip install --quiet --python .venv/bin/python"
else
  "$python" -m venv .venv
  if .venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'; then
    install=".venv/bin/python -m uv pip install --quiet --python .venv/bin/python"
  else
    install=".venv/bin/python -m pip install --quiet --disable-pip-version-check"
  fi
fi
echo "setup: installing the pinned packages into .venv (first time only; a few minutes on a slow line)"
$install --require-hashes -r requirements.lock || not_installed
# The build backend is one of the pinned packages: nothing unpinned is fetched for it.
$install --no-deps --no-build-isolation -e . || not_installed
touch .venv/ready
