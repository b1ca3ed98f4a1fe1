#!/usr/bin/env bash
# fuzz_native.sh INPUTS: the compiled codec under libFuzzer and the sanitizers, where clang has them.
set -euo pipefail
here=$(dirname "$0")
native=$here/../../../services/kvlink/thunderserve/kvlink/codec/native
clang=$(compgen -c clang++ | sort -V | tail -1) || true
[ -n "$clang" ] || { echo "no clang++ (Debian: apt-get install clang): the compiled codec is not fuzzed"; exit 0; }
program=$(mktemp)
trap 'rm -f "$program"' EXIT
"$clang" -std=c++17 -O1 -g -w -ffp-contract=off -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
  -o "$program" "$here/fuzz_int4.cpp" "$native"/{int4,scalar,avx2,avx512}.cpp
"$program" -runs="$1" -max_len=2048 -seed=1 -print_final_stats=1 -verbosity=0
