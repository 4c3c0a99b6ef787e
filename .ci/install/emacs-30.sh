#!/usr/bin/env bash
# Emacs 30 from Debian's backports, unpacked beside the system, which stays untouched: DEST/bin/emacs, DEST/bin/emacsclient,
# and package-lint for the tests.
# Usage: emacs-30.sh DEST. On another Debian than 12 it fails, and whoever calls it goes on without this editor.
set -euo pipefail

destination=$(realpath --canonicalize-missing "$1")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
suite=bookworm-backports

if compgen -G "$destination/root/usr/share/emacs/site-lisp/elpa-src/package-lint-*" >/dev/null && "$destination/bin/emacs" --batch --eval '(princ emacs-version)' >/dev/null 2>&1; then
  exit 0
fi

# The mirror that this machine uses already, in either format of apt's sources.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
[[ -n $mirror ]] || { echo "emacs-30.sh: apt knows no mirror of Debian 12 here" >&2; exit 1; }

rm -rf "$destination"
apt=$destination/apt root=$destination/root
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$root" "$destination/bin"

cat >"$apt/sources.list" <<SOURCES
deb [signed-by=$keyring] $mirror bookworm main
deb [signed-by=$keyring] $mirror $suite main
SOURCES
# The machine's own list of installed packages stays in force: only what is missing here is fetched.
cat >"$apt/apt.conf" <<CONFIGURATION
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Keep-Downloaded-Packages "true";
Binary::apt-get::APT::Keep-Downloaded-Packages "true";
DPkg::Post-Invoke { };
APT::Update::Post-Invoke { };
CONFIGURATION

export APT_CONFIG=$apt/apt.conf
apt-get update -qq
# apt-get wants to be root for a lock even when it only downloads; nothing is installed.
apt-get install -qq --download-only --yes -o Debug::NoLocking=true -t "$suite" \
  emacs-nox emacs-common emacs-bin-common elpa-package-lint >/dev/null
unset APT_CONFIG
for package in "$apt"/cache/archives/*.deb; do
  dpkg-deb --extract "$package" "$root"
done
rm -rf "$apt"

program=$root/usr/bin/emacs-nox
share=$(echo "$root"/usr/share/emacs/30.*)
dump=$(echo "$root"/usr/libexec/emacs/30.*/*/*.pdmp)
# As Emacs itself does: every folder of its lisp, but none that says it is not to be searched.
folders=$(find "$share/lisp" -type d \( -exec test -e {}/.nosearch \; -prune -o -print \) | paste -sd :)
libraries=$(find "$root/usr/lib" -maxdepth 1 -name '*-linux-gnu*' -type d | head -n 1)
cat >"$destination/bin/emacs" <<WRAPPER
#!/bin/sh
export EMACSLOADPATH='$folders' EMACSDATA='$share/etc' EMACSDOC='$share/etc' EMACSPATH='${dump%/*}'
exec '$program' --dump-file='$dump' "\$@"
WRAPPER
if [[ -n $libraries ]]; then
  sed -i "2i export LD_LIBRARY_PATH='$libraries'" "$destination/bin/emacs"
fi
chmod +x "$destination/bin/emacs"
ln -s "$root/usr/bin/emacsclient.emacs" "$destination/bin/emacsclient"
"$destination/bin/emacs" --batch --eval '(princ emacs-version)' >/dev/null
