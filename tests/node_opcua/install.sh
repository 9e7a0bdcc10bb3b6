#!/bin/sh
# The OPC UA servers of the tests, in their locked versions. Without Node.js one line says what is missing.
cd "$(dirname "$0")" || exit 1
if ! command -v npm >/dev/null 2>&1; then
  echo "missing: nodejs npm (apt install nodejs npm); tests against node-opcua are skipped, and say so" >&2
  exit 0
fi
[ node_modules/.package-lock.json -nt package-lock.json ] && exit 0
npm ci --ignore-scripts --no-audit --no-fund --silent ||
  echo "npm could not install node-opcua; tests against it are skipped, and say so" >&2
exit 0
