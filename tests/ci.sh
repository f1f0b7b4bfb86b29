#!/usr/bin/env bash
# Everything that continuous integration checks, in the environment that `make install` made.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" PYTHONWARNINGS=ignore TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1  # two processes at a time, one thread each
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296  # memory is kept for the next array: a tenth of the time went into giving it back
started=$SECONDS
export HOME; HOME=$(mktemp -d)  # nobody's settings, and no need of a home that can be written
trap 'rm -rf "$HOME"' EXIT
step() { printf '\n== %s (%d s)\n' "$1" "$((SECONDS - started))"; }
state() { git status --porcelain --untracked-files=all; git diff; }

step 'a browser for the site, referees for DICOM and its network: fetched in the background'
tools='chromium dcm2niix dcmqrscp Orthanc'
missing() { for tool in $tools; do PATH="$PATH:/usr/sbin" command -v "$tool" >/dev/null || return 0; done; return 1; }
fetch() { apt-get -qq update && RUNLEVEL=1 apt-get -qq install -y --no-install-recommends chromium dcm2niix dcmtk orthanc orthanc-dicomweb; }
if missing && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then fetch >/dev/null 2>&1 & else true & fi
fetched=$!

step 'notebooks, package and README say the same'
before=$(state | sha1sum)
nbdev_export
nbdev_clean
ctlab site --readme
if [ "$before" != "$(state | sha1sum)" ]; then
    git --no-pager diff --stat
    echo 'exporting, cleaning or writing the README changed files: run nbdev_export, nbdev_clean and make readme, then commit' >&2
    exit 1
fi

step 'one style: the formatter and the rules of ruff.toml'
ruff format --check -q nbs tests benchmarks setup.py || { echo 'run: ruff format nbs tests benchmarks setup.py' >&2; exit 1; }
ruff check -q .

step 'the site is built, the types of the public signatures are checked, and every notebook runs'
log=$(mktemp) types=$(mktemp -d)
{ ctlab site; stubgen -q -p ctlab -o "$types" && mypy --config-file= --ignore-missing-imports --no-incremental "$types"; } >"$log" 2>&1 &
built=$!
wait "$fetched" || true
if missing; then echo "$tools cannot all be installed here; the tests that need them will say that they were skipped"; fi
PATH=${PATH#*:} .venv/bin/python tests/notebooks.py  # as `make demo` runs them: not in an activated environment
wait "$built" || { cat "$log"; exit 1; }

step 'commands, faults, studies, browser'
pytest -q -n 3 --durations=12 tests  # three on two cores: some tests wait for servers and browsers
step 'what was run has written nothing that git tracks'
if [ "$before" != "$(state | sha1sum)" ]; then git --no-pager status --short; exit 1; fi
step 'all good'
cat reports/test/skipped.txt
