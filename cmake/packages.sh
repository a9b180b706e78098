#!/bin/sh
# Installs the packages of packages.txt that are missing; without root, prints the one line to run.
# Does nothing (and asks the network nothing) where all of them are there.
set -eu
cd "$(dirname "$0")/.."
wanted=$(grep -v '^#' packages.txt)
if ! command -v dpkg-query > /dev/null; then
    echo "meed: not a Debian or Ubuntu machine; install the equivalents of packages.txt by hand" >&2
    exit 0
fi
missing=
for package in $wanted; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "meed: packages are missing; run this line, then try again:" >&2
    echo "  sudo apt-get install -y --no-install-recommends$missing" >&2
    exit 3
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing > /dev/null
