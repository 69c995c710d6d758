#!/bin/sh
# Runs every fuzz target for a time, such as 3s or 2m, and stops at the first
# that fails, with an exit code other than 0. The input that made it fail is then
# in testdata/fuzz of its package, where every later test run tries it again.
#
#     sh testdata/fuzz.sh 2m           one target after the other, on all processors
#     sh testdata/fuzz.sh 2s brief     as many at once as there are processors
#
# What a fuzzer is told of the way that an input took through the program makes
# it find the next way. The go command puts that into all packages, the libraries
# among them, and builds every one of them anew: minutes of a test run that has
# seconds for this. In a brief run it is put into our own packages alone.
set -eu
cd "$(dirname "$0")/.."
time=$1
go=${GO:-go}
brief=${2:-}
guided='-fuzz=.'
[ -z "$brief" ] || guided='-gcflags=sealmilter/...=-d=libfuzzer'

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
trap 'exit 1' INT TERM
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do
	name=$(echo "$dir" | tr / _)
	"$go" test -c "$guided" -o "$built/$name.test" "$dir"
	cat "$dir"/*_test.go | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' | sort | sed "s|^|$dir $built/$name.test |" >>"$built/targets"
done

# run DIR BINARY TARGET
cat >"$built/run" <<'RUN'
cd "$1"
cache=$BUILT/$3
[ -n "$WORKERS" ] || cache=$CACHE/fuzz/sealmilter/$1
set -- "$1/$3" "$2" -test.run='^$' -test.fuzz="^$3\$" -test.fuzztime="$TIME" -test.fuzzcachedir="$cache" \
	-test.fuzzminimizetime="${MINIMIZE}x" ${WORKERS:+-test.parallel=$WORKERS}
what=$1
shift
# Where the time ends while an input is on its way to a worker, Go calls that a
# failure too, of no input: that says nothing, and is tried again.
for try in 1 2 3; do
	if said=$("$@" 2>&1); then
		echo "ok $what: $(echo "$said" | grep -o 'execs: [0-9]*' | tail -1)"
		exit 0
	fi
	case $said in
	*'Failing input'*) break ;;
	*'context deadline exceeded'*) ;;
	*) break ;;
	esac
done
echo "$said" >&2
echo "FAIL $what" >&2
exit 255 # which xargs stops at
RUN
# By itself Go would try for a minute to make a new input smaller, which it cannot
# where goroutines or random numbers are about.
BUILT=$built TIME=$time CACHE=$("$go" env GOCACHE) WORKERS='' MINIMIZE=100 at_once=1
if [ -n "$brief" ]; then
	WORKERS=1 MINIMIZE=10 at_once=$(getconf _NPROCESSORS_ONLN)
fi
export BUILT TIME CACHE WORKERS MINIMIZE
xargs -P "$at_once" -n 3 sh "$built/run" <"$built/targets"
