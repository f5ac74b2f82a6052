#!/usr/bin/env bash
# Everything worth knowing about a GPU, at most 8 minutes on one H200: do losses equal the CPU's, how fast are training
# steps and replies beside TRL, transformers and vLLM. Writes one JSON file with versions, device, each figure and each failure.
#
#     benchmarks/gpu.sh                       # -> gpu.json
#     DEVICE=cpu SIZE=tiny benchmarks/gpu.sh  # the whole script in small, on a CPU
#
# Nothing is fetched. What has to be there first, in the environment of PYTHON (.venv of this checkout by default):
#
#     uv sync --extra qlora                   # bitsandbytes, for the part `steps-qlora`
#     uv pip install flash-attn               # for `steps-flash`: built for this torch and CUDA; its part fails without
#
# and for `replies-vllm` an environment with vLLM, whose torch and transformers are seldom ours: VLLM_PYTHON names its
# python. orpo is found in this checkout; vLLM's environment needs torch, transformers, rich, pyyaml, filelock and gguf, which
# come with vLLM or with `pip install`. With INSTALL=yes `uv sync --extra qlora` is run here, as a part of its own.
#
# A part that fails or takes too long is recorded with its last words, and the others go on. Exit code: 0 where the losses
# are equal, 1 where they are not or could not be compared, 2 for wrong settings.
#
# From the environment: DEVICE (cuda, cpu; CUDA_VISIBLE_DEVICES chooses among several GPUs), SIZE (full, tiny), MODEL (the
# default model; a folder, for losses and replies), OUT, PYTHON, VLLM_PYTHON, INSTALL, BUDGET (seconds for all parts, 480),
# ONLY (names of parts; without `losses` they are not compared, and the exit code is 0).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

device=${DEVICE:-cuda}
size=${SIZE:-full}
out=${OUT:-gpu.json}
budget=${BUDGET:-480}
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

[[ $device = cpu || $device = cuda ]] || { echo "error: DEVICE=$device: is cpu or cuda" >&2; exit 2; }
[[ $size = full || $size = tiny ]] || { echo "error: SIZE=$size: is full or tiny" >&2; exit 2; }
command -v "$python" >/dev/null || { echo "error: $python is not there; run uv sync, or name another PYTHON" >&2; exit 2; }
if [[ $device = cuda ]] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "error: torch of $python sees no CUDA device; DEVICE=cpu runs the same on a CPU" >&2
    exit 2
fi

parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
: >"$parts/order"
began=$SECONDS

# part NAME SECONDS COMMAND...: run it under a limit and keep what it says.
part() {
    local name=$1 limit=$(($2 * patience)) left status=0 start=$SECONDS
    shift 2
    [[ -z ${ONLY:-} || " $ONLY " = *" $name "* ]] || return 0
    echo "$name" >>"$parts/order"
    left=$((budget - (SECONDS - began)))
    if ((left < 5)); then
        echo "-1 0 $limit" >"$parts/$name.status"
        echo "$name: not begun, the time is over" >&2
        return 0
    fi
    ((limit < left)) || limit=$left
    timeout --kill-after=5 "$limit" "$@" >"$parts/$name.out" 2>"$parts/$name.err" || status=$?
    echo "$status $((SECONDS - start)) $limit" >"$parts/$name.status"
    echo "$name: exit code $status after $((SECONDS - start)) s" >&2
    # All but the last line, which is JSON; of a failure the last words.
    if ((status)); then tail -n 3 "$parts/$name.err" >&2; else sed '$d' "$parts/$name.out"; fi
    return "$status"
}

model=()
[[ -z ${MODEL:-} ]] || model=(--model "$MODEL")
step=("$python" benchmarks/training_step.py --device "$device")
reply=("$python" benchmarks/replies.py --device "$device" ${model[@]+"${model[@]}"})
patience=1
if [[ $size = tiny ]]; then
    patience=4 # where a CPU may have other work too
    steps_of=(--cases tiny-random --repetitions 1 --threads 1 --no-memory)
    quick=("${steps_of[@]}")
    qlora=("${quick[@]}")
    losses=(--steps 2)
    replies=(--prompts 4 --batch-size 4 --max-new-tokens 8 --rounds 1 --threads 1)
else
    steps_of=(--cases default-minimal 1.5b-random --repetitions 10 --batches 6)
    quick=(--cases default-minimal --repetitions 12 --batches 6 --no-memory)
    qlora=(--cases default-minimal --repetitions 6)
    losses=(--steps 8)
    replies=(--prompts 400 --batch-size 200 --max-new-tokens 80 --rounds 2)
fi

[[ ${INSTALL:-} != yes ]] || part install 120 uv sync --extra qlora
part losses 130 "$python" benchmarks/gpu/losses.py --device "$device" ${model[@]+"${model[@]}"} "${losses[@]}"
losses_status=$?
part steps 100 "${step[@]}" "${steps_of[@]}" --variants trl_bf16 fast_bf16
part replies 90 "${reply[@]}" "${replies[@]}" --ways transformers-bf16,ours-bf16,ours-bf16-adapter
# Rows differ in length from step to step, so that what is compiled has to take dynamic shapes.
part steps-flex 80 "${step[@]}" "${quick[@]}" --variants trl_bf16 fast_bf16 fast_bf16_flex
part steps-fp32 60 "${step[@]}" "${quick[@]}" --variants trl_fp32 fast_fp32
part steps-qlora 60 "${step[@]}" "${qlora[@]}" --variants trl_qlora fast_qlora
part steps-flash 60 "${step[@]}" "${quick[@]}" --variants trl_bf16 trl_bf16_flash fast_bf16_flash
part replies-continuous 60 "${reply[@]}" "${replies[@]}" --ways transformers-batch-bf16
reply[0]=${VLLM_PYTHON:-$python}
part replies-vllm 120 "${reply[@]}" "${replies[@]}" --ways vllm-bf16

"$python" benchmarks/gpu/result.py "$parts" "$out" "$device" || exit 1
echo "written: $out, after $((SECONDS - began)) s" >&2
exit $((losses_status != 0))
