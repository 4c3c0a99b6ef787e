#!/usr/bin/env bash
# Neovim 0.12 from Debian's testing suite, unpacked beside the system: DEST/bin/nvim. Usage: neovim-0.12.sh DEST
# About 5 s and 60 MB; needs patchelf. Testing moves: where this fails, whoever calls it goes on without this editor.
set -euo pipefail
. "$(dirname "$0")/debian-packages.bash"

destination=$(realpath --canonicalize-missing "$1")
if [[ -x $destination/bin/nvim ]] && "$destination/bin/nvim" --version >/dev/null 2>&1; then
  exit 0
fi

rm -rf "$destination"
root=$destination/root
mkdir -p "$destination/bin"
unpack testing "$root" neovim
libraries=$(dirname "$(find "$root" -name 'ld-linux-*.so.*' -type f | head -n 1)")
modules=$libraries/lua/5.1
mapfile -t linked < <(find "$libraries" -type f \( -path "$modules/*.so" -o -name 'liblua5.1-*.so*' -o -name 'libluajit*.so*' -o -name 'libtree-sitter.so*' \))
relink "$root" "$root/usr/bin/nvim" "${linked[@]}"

cat >"$destination/bin/nvim" <<WRAPPER
#!/bin/sh
export VIMRUNTIME='$root/usr/share/nvim/runtime' LUA_CPATH='$modules/?.so;;'
exec '$root/usr/bin/nvim' "\$@"
WRAPPER
chmod +x "$destination/bin/nvim"
"$destination/bin/nvim" --version >/dev/null
