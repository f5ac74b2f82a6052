#!/usr/bin/env bash
# Train every method on the same pairs, with the settings of its recipe, and compare all of them with intervals.
#
#     recipes/arena/run.sh                              # the default model on data/preferences
#     recipes/arena/run.sh --model NAME --data PAIRS    # your own; the flags go to train.py, for every method
#
# A run that is whole stays; one that was cut off goes on from its last checkpoint. METHODS, SEEDS, ARENA (the folder) and
# REPORT (flags for report.py) are taken from the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

methods=${METHODS:-orpo sft dpo ipo cpo simpo kto}
seeds=${SEEDS:-42}
arena=${ARENA:-${ORPO_HOME:-.}/trained/arena}
python=${PYTHON:-uv run}
pairs=${ORPO_HOME:-.}/data/preferences
for ((place = 1; place < $#; place++)); do
    following=$((place + 1))
    case ${!place} in --data | -d) pairs=${!following} ;; esac
done

adapters=()
for seed in $seeds; do
    for method in $methods; do
        run=$arena/$method$([ "$seed" = 42 ] || echo "-$seed")
        adapters+=(--adapter "$run")
        [ -e "$run/adapter_model.safetensors" ] && continue
        unfinished=()
        [ -e "$run" ] && unfinished=(--resume)
        # No replies are sampled on the way: the report measures them.
        $python orpo/train.py --recipe "recipes/$method.yaml" --seed "$seed" --out "$run" --eval-prompt-count 0 "$@" \
            ${unfinished[@]+"${unfinished[@]}"}
    done
done
# shellcheck disable=SC2086  # several flags
$python orpo/report.py --recipe recipes/arena/report.yaml "${adapters[@]}" --unseen-by "$pairs" --out "$arena/report" \
    --overwrite --update-cards ${REPORT:-}
