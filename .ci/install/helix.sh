#!/usr/bin/env bash
# Helix from Debian's testing suite, unpacked beside the system: DEST/bin/hx. Usage: helix.sh DEST
# About 5 s; needs patchelf. Testing moves: where this fails, whoever calls it goes on without this editor.
set -euo pipefail
. "$(dirname "$0")/debian-packages.bash"

destination=$(realpath --canonicalize-missing "$1")
if [[ -x $destination/bin/hx ]] && "$destination/bin/hx" --version >/dev/null 2>&1; then
  exit 0
fi

rm -rf "$destination"
root=$destination/root
mkdir -p "$destination/bin"
unpack testing "$root" hx
relink "$root" "$root/usr/bin/hx"
cat >"$destination/bin/hx" <<WRAPPER
#!/bin/sh
export HELIX_RUNTIME='$root/usr/lib/hx/runtime'
exec '$root/usr/bin/hx' "\$@"
WRAPPER
chmod +x "$destination/bin/hx"
"$destination/bin/hx" --version >/dev/null
