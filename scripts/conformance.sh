#!/usr/bin/env bash
# ONNX's backend tests, all of them, and docs/conformance.md.
#
#   conformance.sh            run and judge: fails if more than one case in a hundred fails, or one panics
#   conformance.sh --table    write docs/conformance.md too (needs python3 with onnx, onnxruntime, numpy)
#
# The cases are fetched (fetch.sh) into $CARGO_TARGET_DIR/extended/models; where that fails, nothing is run, and the reason printed.
set -eu

cd "$(dirname "$0")/.."
out=${CARGO_TARGET_DIR:-target}/extended
mkdir -p "$out/models"
if ! scripts/fetch.sh "$out/models" onnx-tests; then
  echo "skipped: the cases cannot be fetched"
  exit 0
fi
SECATEUR_MODELS=$(cd "$out/models" && pwd)
CONFORMANCE=$(cd "$out" && pwd)/conformance.tsv
export SECATEUR_MODELS CONFORMANCE
cargo test --release -p secateur-engine --test conformance -- --ignored --nocapture
if [ "${1:-}" = --table ]; then
  python3 scripts/conformance.py ort "$SECATEUR_MODELS/onnx-tests" "$out/conformance-ort.tsv"
  python3 scripts/conformance.py table "$CONFORMANCE" "$out/conformance-ort.tsv" >docs/conformance.md
fi
