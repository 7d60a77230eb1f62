#!/usr/bin/env bash
# The extended tests: real models and ONNX's own test files, judged by the onnx package and ONNX Runtime.
#
#   extended.sh      needs python3 with pip, onnx, onnxruntime, numpy; what is missing is skipped, with the reason
#
# 1. Fetches the models and test files (fetch.sh) into $CARGO_TARGET_DIR/extended/models = SECATEUR_MODELS.
# 2. Runs the Rust tests of tests/extended.rs, which read SECATEUR_MODELS and leave the models they wrote in SECATEUR_OUT, and all of
#    ONNX's backend tests (conformance.sh).
# 3. Rewrites each model with `secateur optimize --level none` and compares the messages (onnx_equal.py).
# 4. Compares each model, as it is, optimised and with 80 % zeros, with ONNX Runtime (`secateur verify --engine ort`).
# 5. Exports graphs by both of PyTorch's exporters (export_graphs.py) and runs engine/tests/exports.rs on them: they agree with ONNX
#    Runtime, and what they spell out is recognised. Without torch this is skipped.
# 6. Writes ResNet-50, MobileNetV2 and BERT (`secateur new`) into SECATEUR_OUT.
# 7. Checks, loads and runs every model of SECATEUR_OUT in ONNX Runtime (check_onnx.py), and compares it as in 4.
#
# Ends in a line `extended: N passed, N failed, N skipped`. Exit status: 1 if any failed.
set -eu

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
rm -rf "$target/extended/out"
mkdir -p "$target/extended/models" "$target/extended/out/rewritten"
SECATEUR_MODELS=$(cd "$target/extended/models" && pwd)
SECATEUR_OUT=$(cd "$target/extended/out" && pwd)
export SECATEUR_MODELS SECATEUR_OUT
passed=0 failed=0 skipped=0

judge() {
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

skip() {
  echo "skipped: $1"
  skipped=$((skipped + 1))
}

rewrite() { # in out
  "$target/release/secateur" optimize --level none "$1" "$2" --force --quiet && scripts/onnx_equal.py "$1" "$2"
}

against_ort() { # file
  local sizes=()
  case ${1##*/} in
    *320n* | *nudenet*) sizes=(-s height=320 -s width=320) ;;
    *MiniLM* | *minilm*) sizes=(-s sequence_length=128) ;;
    *new-bert*) sizes=(-s seq=32 -i input_ids=rand:0:30522 -i token_type_ids=rand:0:2 -i attention_mask=rand:0:2) ;;
  esac
  "$target/release/secateur" verify "$1" --engine ort --runs 5 --quiet "${sizes[@]}"
}

prune() { # in out
  "$target/release/secateur" prune "$1" "$2" --sparsity 80% --force --quiet >/dev/null
}

check() { # file
  local shape=()
  # Its free height and width must be multiples of 32.
  case ${1#"$SECATEUR_OUT"/} in *nudenet* | *320n*) shape=(--shape images=1,3,320,320) ;; esac
  scripts/check_onnx.py "$1" "${shape[@]}"
}

for name in $(awk -F '\t' 'FNR > 1 { print $1 }' scripts/models.tsv) onnx-tests; do
  scripts/fetch.sh "$SECATEUR_MODELS" "$name" || skipped=$((skipped + 1))
done

cargo build --release --features ort
judge cargo test --release --features ort --test extended -- --nocapture
judge scripts/conformance.sh

SECATEUR_GRAPHS=$target/extended/graphs
if missing=$(python3 -c 'import torch, onnxscript' 2>&1); then
  mkdir -p "$SECATEUR_GRAPHS"
  SECATEUR_GRAPHS=$(cd "$SECATEUR_GRAPHS" && pwd)
  export SECATEUR_GRAPHS
  judge python3 scripts/export_graphs.py "$SECATEUR_GRAPHS"
  judge cargo test --release -p secateur-engine --test exports -- --nocapture
else
  skip "graphs of PyTorch's exporters: ${missing##*$'\n'}"
fi

if missing=$(python3 -c 'import onnx, onnxruntime, numpy' 2>&1); then
  for model in "$SECATEUR_MODELS"/*/*.onnx; do
    [ -e "$model" ] || continue
    judge rewrite "$model" "$SECATEUR_OUT/rewritten/${model##*/}"
    judge prune "$model" "$SECATEUR_OUT/pruned-${model##*/}"
    judge against_ort "$model"
  done
  for arch in resnet50 mobilenetv2 bert-base; do
    judge "$target/release/secateur" new "$arch" "$SECATEUR_OUT/new-$arch.onnx" --quiet
  done
  while IFS= read -r -d '' model; do
    judge check "$model"
    case $model in */rewritten/*) ;; *) judge against_ort "$model" ;; esac
  done < <(find "$SECATEUR_OUT" -name '*.onnx' -print0 | sort -z)
else
  skip "comparison by onnx and ONNX Runtime: ${missing##*$'\n'}"
fi

echo "extended: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
