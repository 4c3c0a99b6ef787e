#!/usr/bin/env bash
# VS Code for a browser: code-server from npm, nothing compiled. Usage: code-server.sh DEST; leaves DEST/bin/code-server.
# About 40 s and 800 MB; needs npm, and to look at it Debian's chromium.
set -euo pipefail
version=4.139.1
# code-server runs on Node 24 alone, whatever the system has.
node=24.21.0

destination=$(realpath -m "$1")
stamp="$destination/installed"
if [ "$(cat "$stamp" 2> /dev/null || true)" = "$version on $node" ]; then
    exit 0
fi
rm -rf "$destination"
mkdir -p "$destination/node" "$destination/code-server" "$destination/bin"

# Each folder is a project of its own, or npm would look for one above it.
install() {
    npm install --silent --no-audit --no-fund --no-save "$@"
}
cd "$destination/node"
echo '{"private": true}' > package.json
install "node@$node"
export PATH="$destination/node/node_modules/.bin:$PATH"

# Its install scripts would compile what only log files and a watchdog need.
cd "$destination/code-server"
echo '{"private": true}' > package.json
install --ignore-scripts "code-server@$version"
cd node_modules/code-server/lib/vscode
npm install --silent --no-audit --no-fund --omit=dev --ignore-scripts
(cd extensions && npm install --silent --no-audit --no-fund --omit=dev --ignore-scripts)
ln -sf code-linux.sh bin/remote-cli/code-server
ln -sf browser-linux.sh bin/helpers/browser.sh

cat > "$destination/bin/code-server" << SCRIPT
#!/bin/sh
export PATH="$destination/node/node_modules/.bin:\$PATH"
exec "$destination/code-server/node_modules/.bin/code-server" "\$@"
SCRIPT
chmod +x "$destination/bin/code-server"
"$destination/bin/code-server" --version
echo "$version on $node" > "$stamp"
