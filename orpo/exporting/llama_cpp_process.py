"""The process that holds llama.cpp: loads a model, says where it listens, and ends when its input is closed."""

import json
import os
import sys


def main(argument: str) -> None:
    """Serve what a line of JSON asks for: `model`, `adapter`, `context`, `threads`."""
    import xllamacpp

    asked = json.loads(argument)
    params = xllamacpp.CommonParams()
    params.model.path = asked["model"]
    if asked["adapter"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(asked["adapter"], 1.0)]
    params.n_ctx = asked["context"]
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked["threads"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any that is free
    # The file is what is asked, not the roundings that speed may be bought with when it is used.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.use_jinja = True
    params.warmup = False
    params.verbosity = 1  # errors
    server = xllamacpp.Server(params)
    print(f"listening {server.listening_address}", flush=True)
    sys.stdin.read()
    os._exit(0)  # its threads would hold up an orderly end


if __name__ == "__main__":
    main(sys.argv[1])
