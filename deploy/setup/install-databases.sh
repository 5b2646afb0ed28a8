#!/bin/sh
# Puts what the storage tests run against into .tools/databases of this checkout, from package registries alone:
#   python/       a server that speaks MongoDB's wire protocol (SecantusDB), and the Python drivers of both databases with which
#                 the tests read what was seeded (8 MB to download; needs python3 with pip),
#   cassandra/    Cassandra 5 from Maven Central (66 MB; needs Java 17 and Maven, which are taken from Debian's packages where
#                 they are missing and apt-get may be used).
# Runs again without harm. What cannot be had is said in a line, and is an error.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
databases=$root/.tools/databases
python=$databases/python
cassandra=$databases/cassandra

say() { printf 'install-databases: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
python_works() { PYTHONPATH=$python python3 -c 'import secantus, pymongo, cassandra.cluster' >/dev/null 2>&1; }
java_works() { have java && java -version 2>&1 | grep -Eq 'version "(17|21)'; }
missing=

missed() {
    say "$*"
    missing=yes
}

# Debian's packages, where we may install some.
debian() {
    have apt-get || return 1
    if [ "$(id -u)" -eq 0 ]; then sudo=; elif have sudo && sudo -n true 2>/dev/null; then sudo="sudo -n"; else return 1; fi
    say "installing Debian's $*"
    $sudo apt-get update >&2 && $sudo apt-get install -y --no-install-recommends "$@" >&2
}

install_python() {
    have python3 && python3 -m pip --version >/dev/null 2>&1 || debian python3 python3-pip || return 1
    say "installing SecantusDB, pymongo and cassandra-driver"
    rm -rf "$python.new"
    python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --only-binary :all: \
        --target "$python.new" SecantusDB==0.7.0b3 pymongo==4.20.1 >&2 || return 1
    # Its dependencies are for graphs and numbers, which no test touches.
    python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --only-binary :all: --no-deps \
        --target "$python.new" cassandra-driver==3.30.1 >&2 || return 1
    rm -rf "$python" && mv "$python.new" "$python" && python_works
}

install_cassandra() {
    java_works || debian openjdk-17-jre-headless || true
    java_works || { say "Cassandra needs Java 17 or 21"; return 1; }
    have mvn || debian maven || { say "fetching Cassandra needs Maven (mvn)"; return 1; }
    say "fetching Cassandra from Maven Central"
    rm -rf "$cassandra.new" && mkdir -p "$cassandra.new"
    mvn -q -B -f "$root/deploy/setup/cassandra/pom.xml" dependency:copy-dependencies -DoutputDirectory="$cassandra.new/lib" >&2 || return 1
    rm -rf "$cassandra" && mv "$cassandra.new" "$cassandra"
}

mkdir -p "$databases"
if python_works; then say "SecantusDB and the drivers are already there"; else
    install_python || missed "no SecantusDB: install python3 with pip"
fi
if [ -d "$cassandra/lib" ] && java_works; then say "Cassandra is already there"; else
    install_cassandra || missed "no Cassandra: install Java 17 and Maven"
fi
[ -z "$missing" ]
