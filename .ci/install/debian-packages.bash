# Sourced by the install scripts of editors that Debian has only in another suite. The system stays untouched: packages are
# unpacked with all that they depend on, the C library included, and their programs are bound to that.

# unpack SUITE ROOT PACKAGE...
unpack() {
  local suite=$1 root=$2 apt mirror package
  shift 2
  # The mirror that this machine uses already, in either format of apt's sources.
  mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | awk '$1 !~ /-/ { print $2; exit }')
  [[ -n $mirror ]] || { echo "apt knows no mirror of Debian here" >&2; return 1; }
  apt=$(mktemp --directory)
  mkdir -p "$apt"/{lists/partial,cache/archives/partial} "$root"
  # To a machine without a single package everything is missing, and so everything comes.
  : >"$apt/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
  cat >"$apt/apt.conf" <<CONFIGURATION
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Keep-Downloaded-Packages "true";
Binary::apt-get::APT::Keep-Downloaded-Packages "true";
DPkg::Post-Invoke { };
APT::Update::Post-Invoke { };
CONFIGURATION
  APT_CONFIG=$apt/apt.conf apt-get update -qq
  # apt-get wants to be root for a lock even when it only downloads; nothing is installed.
  APT_CONFIG=$apt/apt.conf apt-get install -qq --download-only --yes -o Debug::NoLocking=true "$@" >/dev/null
  for package in "$apt"/cache/archives/*.deb; do
    dpkg-deb --extract "$package" "$root"
  done
  rm -rf "$apt"
}

# relink ROOT PROGRAM [LIBRARY...]: let a program run on the C library and the libraries under ROOT.
relink() {
  local root=$1 program=$2 libraries interpreter library
  shift 2
  interpreter=$(find "$root" -name 'ld-linux-*.so.*' -type f | head -n 1)
  libraries=$(dirname "$interpreter")
  patchelf --set-interpreter "$interpreter" --force-rpath --set-rpath "$libraries" "$program"
  for library in "$@"; do
    patchelf --force-rpath --set-rpath "$libraries" "$library"
  done
}
