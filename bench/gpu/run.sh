#!/bin/sh
# run.sh - starts malc from this folder, with the Node that is in it or the machine's own.
#
#   ./run.sh gpu [--minutes 8] [--parts NAME,..] [--out DIR]    what `npm run gpu` does
#   ./run.sh COMMAND ..                                        malc
here=$(cd "$(dirname "$0")" && pwd) || exit 1
if [ -x "$here/node" ]; then
  node=$here/node
elif ! node=$(command -v node); then
  echo "run.sh: this bundle has no Node in it, and there is none on the PATH (20 or newer)" >&2
  exit 3
fi
if [ "$1" = gpu ]; then
  shift
  exec "$node" "$here/dist/gpu.js" "$@"
fi
exec "$node" "$here/dist/malc.js" "$@"
