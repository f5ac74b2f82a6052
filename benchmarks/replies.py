"""Replies side by side: transformers' generate, llama.cpp and this project's, in several number formats.

    uv run benchmarks/replies.py                          # the default model, 100 prompts, batch 50
    uv run benchmarks/replies.py --ways ours-bf16,transformers-fp32 --prompts 50 --rounds 1
    uv run benchmarks/replies.py --clock cpu --threads 1  # on a machine that others use too
    uv run --extra gguf benchmarks/replies.py --ways ours-bf16,llamacpp-file --gguf model-q8_0.gguf
    uv run --with openvino-genai benchmarks/replies.py --ways ours-fp32,openvino-fp32 --gguf model-f16.gguf --memory

llamacpp is the xllamacpp package with 16 slots, on --gguf or else the default model's own file (Q4_1),
transformers-batch is `generate_batch`, its continuous batching, openvino is openvino-genai on --gguf (it reads the
default model's own file as another model), and vllm is vLLM in this process, where it is installed (on its own choice
of device; never run here, for want of a GPU). All ways answer the same prompts with the same sampling; they take turns,
the first round warms up and is not counted, and medians are shown. Tokens are those of the replies up to their end,
however the rest of the batch goes on. With --memory each way runs once more, in a process of its own, and its peak is
shown. The last line is JSON.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
WAYS = (
    "transformers-fp32",
    "transformers-bf16",
    "ours-fp32",
    "ours-fp32-adapter",
    "ours-bf16",
    "ours-bf16-adapter",
)
FURTHER_WAYS = (
    "transformers-batch-fp32",
    "transformers-batch-bf16",
    "llamacpp-file",
    "openvino-fp32",
    "vllm-bf16",
    "vllm-fp32",
)
SLOTS = 16


def main() -> None:
    """Measure and print the table and the JSON line."""
    arguments = read_arguments()
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    ways = make_ways(arguments)
    clock = CLOCKS[arguments.clock]
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(arguments.rounds + 1):
        for name, answer in ways.items():
            started = clock()
            tokens = answer(8 if round_number == 0 else arguments.prompts)
            speed = tokens / (clock() - started)
            print(f"round {round_number}: {name:22} {speed:7.1f} tokens/s", file=sys.stderr, flush=True)
            if round_number:
                speeds[name].append(speed)
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    base = medians.get("transformers-fp32")
    peaks = {name: peak_of(name) for name in ways} if arguments.memory else {}
    for name, speed in medians.items():
        ratio = f"{speed / base:5.2f}x" if base else ""
        memory = f"  {peaks[name]:.0f} MB" if peaks else ""
        print(f"{name:22} {speed:7.1f} tokens/s  {ratio}  {min(speeds[name]):.1f} to {max(speeds[name]):.1f}{memory}")
    figures: dict[str, Any] = {
        "tokens_per_second": medians,
        "rounds": speeds,
        "peak_mb": resident_peak(),
        "peak_mb_apart": peaks,
    }
    if torch.cuda.is_initialized():
        figures["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
    print(json.dumps({**figures, "settings": vars(arguments)}))


def resident_peak() -> float:
    """Return the most memory that this process has had, in MB."""
    status = Path("/proc/self/status")  # where there is none, the other figure begins with the parent's memory
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return next(int(line.split()[1]) / 2**10 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def peak_of(way: str) -> float:
    """Answer once in a process of its own, and return its peak in MB."""
    own = [argument for argument in sys.argv[1:] if argument != "--memory"]
    done = subprocess.run(
        [sys.executable, __file__, *own, "--ways", way, "--rounds", "1"], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mb"])


def read_arguments() -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="the default model, a folder or a GGUF file")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"also {', '.join(FURTHER_WAYS)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--gguf", help="the file for llamacpp and openvino")
    parser.add_argument("--prompts", type=int, default=100, help="how many of the shipped prompts")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--max-new-tokens", type=int, default=80)
    parser.add_argument("--system", default="", help="a system prompt that all conversations begin with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--memory", action="store_true", help="each way's peak, in a process of its own")
    return parser.parse_args()


def make_ways(arguments: argparse.Namespace) -> dict[str, Callable[[int], int]]:
    """Return functions that answer this many prompts and return how many tokens the replies have."""
    import torch

    from orpo.chat_model.chat_template import encode_prompt
    from orpo.chat_model.default_model import default_model_file
    from orpo.chat_model.generation import generate_replies
    from orpo.chat_model.loading import load_model, load_tokenizer
    from orpo.records.messages import with_system
    from orpo.records.prompts import embedded_prompts
    from orpo.records.replies import Sampling

    tokenizer = load_tokenizer(arguments.model)
    sampling = Sampling(temperature=0.4, max_new_tokens=arguments.max_new_tokens)
    prompts = [with_system(arguments.system, prompt.conversation()) for prompt in embedded_prompts()]
    models: dict[str, Any] = {}
    file = arguments.gguf or str(default_model_file())
    engines: dict[str, Any] = {}
    for way in arguments.ways.split(","):
        if way.startswith("vllm"):
            engines[way] = Vllm(arguments, way)
        elif way.startswith("llamacpp"):
            engines[way] = LlamaCpp(file, torch.get_num_threads())
        elif way.startswith("openvino"):
            engines[way] = OpenVino(file, arguments.batch_size)

    def model(kind: str) -> Any:
        """Load each model once: in a number format, with or without an adapter that changes all its layers."""
        if kind not in models:
            dtype = torch.float32 if "fp32" in kind else torch.bfloat16
            loaded = load_model(arguments.model, device=arguments.device, dtype=dtype)
            models[kind] = with_adapter(loaded) if "adapter" in kind else loaded
        return models[kind]

    def ours(kind: str, count: int) -> int:
        replies = generate_replies(
            model(kind), tokenizer, prompts[:count], sampling, seed=0, batch_size=arguments.batch_size
        )
        return sum(reply.tokens for reply in replies)

    def theirs(kind: str, count: int) -> int:
        return by_transformers(model(kind), tokenizer, prompts[:count], sampling, arguments.batch_size)

    def run(way: str, count: int) -> int:
        kind = way.partition("-")[2]
        if way in engines:
            asked = [encode_prompt(tokenizer, messages) for messages in prompts[:count]]
            return int(engines[way].answer(asked, sampling))
        if way.startswith("transformers-batch"):
            return by_continuous_batching(model(kind), tokenizer, prompts[:count], sampling, arguments.batch_size)
        return (ours if way.startswith("ours") else theirs)(kind, count)

    return {way: partial(run, way) for way in arguments.ways.split(",")}


def with_adapter(model: Any) -> Any:
    """Put an adapter of rank 16 on all linear layers, with weights of the size that training gives."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tuned = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=1e-3)
    return tuned.eval()


def by_transformers(model: Any, tokenizer: Any, prompts: Any, sampling: Any, batch_size: int) -> int:
    """Let `generate` sample in batches padded on the left, sorted by length as ours are."""
    import torch

    from orpo.chat_model.chat_template import encode_prompt, reply_end_ids

    rows = sorted((encode_prompt(tokenizer, messages) for messages in prompts), key=len)
    ends = reply_end_ids(model, tokenizer)
    tokens = 0
    torch.manual_seed(0)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        longest = max(map(len, batch))
        padding = tokenizer.pad_token_id
        ids = torch.tensor([[padding] * (longest - len(row)) + row for row in batch], device=model.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch], device=model.device)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=ends,
            pad_token_id=padding,
        )
        for reply in output[:, longest:].tolist():
            tokens += next((place + 1 for place, token in enumerate(reply) if token in ends), len(reply))
    return tokens


def by_continuous_batching(model: Any, tokenizer: Any, prompts: Any, sampling: Any, batch_size: int) -> int:
    """Let transformers' continuous batching answer."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    from orpo.chat_model.chat_template import encode_prompt, reply_end_ids

    asked = GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=0,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=reply_end_ids(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    settings = ContinuousBatchingConfig(max_batch_tokens=max(batch_size, 256))
    found = model.generate_batch(
        inputs=[encode_prompt(tokenizer, messages) for messages in prompts],
        generation_config=asked,
        continuous_batching_config=settings,
    )
    return sum(len(one.generated_tokens) for one in found.values())


class LlamaCpp:
    """llama.cpp in this process, asked over the loopback by as many threads as it has slots."""

    def __init__(self, file: str, threads: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = file
        params.n_parallel, params.n_ctx = SLOTS, SLOTS * 512
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.hostnames, params.port, params.verbosity = ["127.0.0.1"], 0, 1
        self._server = xllamacpp.Server(params)

    def answer(self, prompts: list[list[int]], sampling: Any) -> int:
        """Answer all prompts and return the number of tokens."""
        from concurrent.futures import ThreadPoolExecutor

        import requests

        def ask(number: int) -> int:
            body = {
                "prompt": prompts[number],
                "n_predict": sampling.max_new_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": 0,
                "seed": number,
                "cache_prompt": False,
            }
            answer = requests.post(f"{self._server.listening_address}/completion", json=body, timeout=600)
            answer.raise_for_status()
            return int(answer.json()["tokens_predicted"])

        with ThreadPoolExecutor(SLOTS) as pool:
            return sum(pool.map(ask, range(len(prompts))))


class Vllm:
    """vLLM in this process, with as many sequences at a time as the batches of the others."""

    def __init__(self, arguments: argparse.Namespace, way: str) -> None:
        from vllm import LLM

        from orpo.chat_model.loading import locate_model

        self._model = LLM(
            model=locate_model(arguments.model),
            dtype="float32" if way.endswith("fp32") else "bfloat16",
            max_num_seqs=arguments.batch_size,
            max_model_len=2048,
            gpu_memory_utilization=0.5,  # the other ways' models may lie beside it
            seed=0,
        )

    def answer(self, prompts: list[list[int]], sampling: Any) -> int:
        """Answer all prompts and return the number of tokens; a reply ends where the model's own settings say."""
        from vllm import SamplingParams

        asked = SamplingParams(
            temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_new_tokens
        )
        found = self._model.generate([{"prompt_token_ids": ids} for ids in prompts], asked, use_tqdm=False)
        return sum(len(one.outputs[0].token_ids) for one in found)


class OpenVino:
    """openvino-genai in this process, in float32, which is what gives a row the same reply alone and among others."""

    def __init__(self, file: str, slots: int) -> None:
        import openvino_genai

        scheduling = openvino_genai.SchedulerConfig()
        scheduling.max_num_seqs, scheduling.enable_prefix_caching = slots, False
        exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(file, scheduling, "CPU", exact)

    def answer(self, prompts: list[list[int]], sampling: Any) -> int:
        """Answer all prompts and return the number of tokens."""
        import numpy as np
        import openvino
        import openvino_genai

        asked = openvino_genai.GenerationConfig()
        asked.do_sample, asked.temperature, asked.top_p = True, sampling.temperature, sampling.top_p
        asked.max_new_tokens = sampling.max_new_tokens
        rows = [openvino.Tensor(np.array([row], dtype=np.int64)) for row in prompts]
        found = self._pipeline.generate(rows, [asked] * len(rows))
        return sum(len(one.m_generation_ids[0]) for one in found)


if __name__ == "__main__":
    main()
