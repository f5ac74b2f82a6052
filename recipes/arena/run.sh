#!/usr/bin/env bash
# Train every method on the same pairs, with the settings of its recipe, and compare all of them with intervals.
#
#     recipes/arena/run.sh                              # the default model on data/preferences
#     recipes/arena/run.sh --model NAME --data PAIRS    # your own; the flags go to train.py, for every method
#
# A run that is whole stays; one that was cut off goes on from its last checkpoint; a method that ruins the model is told and
# not compared. METHODS, SEEDS, ARENA (the folder) and
# REPORT (flags for report.py) are taken from the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

methods=${METHODS:-orpo sft dpo ipo cpo simpo kto}
seeds=${SEEDS:-42}
arena=${ARENA:-${ORPO_HOME:-.}/trained/arena}
python=${PYTHON:-uv run python}

adapters=()
ruined=()
for seed in $seeds; do
    for method in $methods; do
        run=$arena/$method$([ "$seed" = 42 ] || echo "-$seed")
        unfinished=()
        [ -e "$run" ] && unfinished=(--resume)
        # No replies are sampled on the way: the report measures them.
        status=0
        [ -e "$run/adapter_model.safetensors" ] ||
            $python orpo/train.py --recipe "recipes/$method.yaml" --seed "$seed" --out "$run" --eval-prompt-count 0 "$@" \
                ${unfinished[@]+"${unfinished[@]}"} || status=$?
        case $status in
        0) adapters+=(--adapter "$run") ;;
        1) ruined+=("$run") ;; # what a guard of the trainer exits with; wrong flags and Ctrl-C have codes of their own
        *) exit "$status" ;;
        esac
    done
done
[ ${#adapters[@]} -gt 0 ] || exit 1
# What the first run was trained on, as its record says: a weight after a name is none of its name.
pairs=()
while IFS= read -r name; do pairs+=("$name"); done < <(
    $python - "${adapters[1]}/run.json" <<'END'
import json, sys
from orpo.command.paths import default_data_folder
from orpo.training.data_sets import split_weight
data = json.load(open(sys.argv[1], encoding="utf-8"))["settings"]["data"]
print(*(split_weight(name)[0] for name in data or [str(default_data_folder())]), sep="\n")
END
)
# shellcheck disable=SC2086  # several flags
$python orpo/report.py --recipe recipes/arena/report.yaml "${adapters[@]}" --unseen-by "${pairs[@]}" --out "$arena/report" \
    --overwrite --update-cards ${REPORT:-}
[ ${#ruined[@]} = 0 ] || echo "not compared, since training ended with the error above: ${ruined[*]}" >&2
