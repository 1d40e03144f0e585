#!/bin/sh
# Runs every target under libFuzzer for FUZZ_SECONDS each (20), from the committed corpus on; what it finds stays in
# TARGET_DIR/fuzz for the next time. FUZZ_SEED (drawn) seeds them, FUZZ_TARGETS names the targets (all).
#   run.sh TARGET_DIR
set -eu
cd "$(dirname "$0")/../.."
seconds=${FUZZ_SECONDS:-20}
seed=${FUZZ_SEED:-$(($(od -An -N3 -tu4 /dev/urandom) + 1))}
mkdir -p "$1"
work=$(cd "$1" && pwd)/fuzz
export CARGO_TARGET_DIR="$work/target"
PATH="$work/bin:$PATH"
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --root "$work" cargo-fuzz@0.13.2
# Without a sanitizer, which the broker's safe code has little use for, any Rust will do.
cargo fuzz build --fuzz-dir tests/fuzz --sanitizer none
targets=${FUZZ_TARGETS:-$(ls tests/fuzz/corpus)}
count=0 executions=0 crashes=0 most=0
for target in $targets; do
    found=$work/corpus/$target log=$work/$target.log
    mkdir -p "$found"
    export FUZZ_SEEDS="$found"
    cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none "$target" "$found" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -seed="$seed" -max_len=8192 -timeout=30 -rss_limit_mb=1024 \
        -artifact_prefix="$work/$target-" -print_final_stats=1 >"$log" 2>&1 &
    pid=$! waited=0
    while kill -0 $pid 2>/dev/null; do
        sleep 1
        waited=$((waited + 1))
        [ $((waited % 10)) -ne 0 ] || echo "fuzz: $target: $waited s: $(grep -a '^#' "$log" | tail -n 1)"
    done
    if ! wait $pid; then
        crashes=$((crashes + 1))
        grep -av '^#' "$log" | tail -n 40
    fi
    ran=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    took=$(sed -n 's/^took //p' "$log" | tail -n 1)
    echo "fuzz: $target: executions=${ran:-0} allocation_max=${took:-0}"
    count=$((count + 1)) executions=$((executions + ${ran:-0}))
    [ "${took:-0}" -le $most ] || most=$took
done
echo "fuzz: targets=$count executions=$executions crashes=$crashes allocation_max=$most seed=$seed"
[ $crashes -eq 0 ]
