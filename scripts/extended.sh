#!/usr/bin/env bash
# The extended tests: real models and ONNX's own test files, judged by the onnx package and ONNX Runtime.
#
#   extended.sh      needs python3 with pip, onnx, onnxruntime, numpy; what is missing is skipped, with the reason
#
# 1. Fetches the models and test files (fetch.sh) into $CARGO_TARGET_DIR/extended/models = SECATEUR_MODELS.
# 2. Runs the Rust tests of tests/extended.rs, which read SECATEUR_MODELS and leave the models they wrote in SECATEUR_OUT, and all of
#    ONNX's backend tests (conformance.sh).
# 3. Rewrites each model with `secateur optimize --level none` and compares the messages (onnx_equal.py).
# 4. Compares each model with ONNX Runtime (`secateur verify --engine ort`), on the inputs that models.tsv names; where its `steps`
#    are `all`, also optimised and with 80 % zeros. A model with a tolerance of its own must also agree in every argmax.
#    One has it: ddddocr's common_old.onnx takes bytes instead of floats before each product, and the last bit of a float decides
#    which byte it becomes. Logits of up to 17 differ by 0.25 between two runs of ONNX Runtime whose inputs differ by 1e-6; twice that
#    is allowed. The other model of bytes, and the half-precision one, which casts its weights up, keep to the common tolerance.
# 5. Exports graphs by both of PyTorch's exporters (export_graphs.py) and runs engine/tests/exports.rs on them: they agree with ONNX
#    Runtime, and what they spell out is recognised. Without torch this is skipped.
# 6. Compares gradients and optimisers with PyTorch's (gradients.py); also skipped without torch.
# 7. Writes ResNet-50, MobileNetV2 and BERT (`secateur new`) into SECATEUR_OUT.
# 8. Checks, loads and runs every model of SECATEUR_OUT in ONNX Runtime (check_onnx.py), and compares it as in 4.
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

against_ort() { # file argument...
  local json=$target/extended/verify.json
  "$target/release/secateur" verify "$1" --engine ort --quiet --json "${@:2}" >"$json" || { cat "$json"; return 1; }
  case " $* " in *" --atol "*) python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)["argmax_agreement"] != 1)' <"$json" ;; esac
}

prune() { # in out
  "$target/release/secateur" prune "$1" "$2" --sparsity 80% --force --quiet >/dev/null
}

cut() { # in out argument...
  "$target/release/secateur" prune "$1" "$2" --pattern structured --sparsity 30% --force --quiet "${@:3}" >/dev/null
}

check() { # file
  local shape=()
  # Its free height and width must be multiples of 32.
  case ${1#"$SECATEUR_OUT"/} in *nudenet* | *320n*) shape=(--shape images=1,3,320,320) ;; esac
  scripts/check_onnx.py "$1" "${shape[@]}"
}

for name in $(awk -F '\t' 'FNR > 1 { print $1 }' scripts/models.tsv | uniq) onnx-tests; do
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
  cargo build --release -p secateur-train --example batch
  judge python3 scripts/gradients.py "$SECATEUR_MODELS"
else
  skip "graphs of PyTorch's exporters, and its gradients: ${missing##*$'\n'}"
fi

if missing=$(python3 -c 'import onnx, onnxruntime, numpy' 2>&1); then
  while IFS=$'\t' read -r name _ _ _ path _ steps inputs; do
    file=${path##*/}
    model=$SECATEUR_MODELS/$name/$file
    [ -e "$model" ] || continue
    read -ra inputs <<<"$inputs"
    [ "${inputs[*]}" != - ] || inputs=()
    judge rewrite "$model" "$SECATEUR_OUT/rewritten/$file"
    if [ "$steps" != all ]; then
      judge against_ort "$model" --runs 2 "${inputs[@]}"
      rm -f "$SECATEUR_OUT/rewritten/$file"
      continue
    fi
    judge prune "$model" "$SECATEUR_OUT/pruned-$file"
    judge cut "$model" "$SECATEUR_OUT/cut-$file" "${inputs[@]}"
    for made in "$model" "$SECATEUR_OUT"/{pruned,cut}-"$file" "$SECATEUR_OUT/$name-optimised.onnx"; do
      judge against_ort "$made" "${inputs[@]}"
    done
  done < <(tail -n +2 scripts/models.tsv)
  for arch in $("$target/release/secateur" new --list --json | python3 -c "
import json, sys
for arch in json.load(sys.stdin)['archs']: print(arch['name'])"); do
    made=$SECATEUR_OUT/new-$arch.onnx inputs=() small=()
    # Half a gigabyte otherwise.
    case $arch in vgg*) small=(--set hidden=256) ;; esac
    judge "$target/release/secateur" new "$arch" "$made" --quiet "${small[@]}"
    case $arch in
      bert-base)
        inputs=(-s length=32 -i input_ids=rand:0:30522 -i token_type_ids=rand:0:2 -i attention_mask=rand:0:2)
        ;;
      gru | lstm | rnn | transformer-decoder) inputs=(-i input_ids=rand:0:10000) ;;
      transformer) inputs=(-i source_ids=rand:0:10000 -i target_ids=rand:0:10000) ;;
    esac
    judge against_ort "$made" --runs 2 "${inputs[@]}"
  done
  while IFS= read -r -d '' model; do
    judge check "$model"
  done < <(find "$SECATEUR_OUT" -name '*.onnx' -print0 | sort -z)
else
  skip "comparison by onnx and ONNX Runtime: ${missing##*$'\n'}"
fi

echo "extended: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
