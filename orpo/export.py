"""Export a trained adapter to what other programs run, and prove that it answers as before.

    uv run orpo/export.py                                one model in safetensors, from the newest adapter
    uv run orpo/export.py --to adapter                   a plain PEFT folder, for vLLM and transformers
    uv run orpo/export.py --to gguf --quantization q8_0  one file for llama.cpp
    uv run orpo/export.py --to gguf-adapter              base and LoRA adapter as two files for llama.cpp
    uv run orpo/export.py --to ollama                    GGUF and Modelfile
    uv run orpo/export.py --adapter trained/a --dtype float32 --out exported/a
    uv run orpo/export.py --push my-emoji-model          upload too: private, and only after a yes

Twenty held-out prompts are answered greedily before and after. Merged weights must answer equal to the letter in
float32; a GGUF file is run in a real llama.cpp, where every prompt must become the same tokens. An export that fails
says so, exits with 1 and keeps nothing. docs/export.md shows how each program runs what comes out.
"""

from orpo.command.run_command import run_command
from orpo.command.settings import parse_settings
from orpo.exporting.settings import ExportSettings


def main(argv: list[str]) -> int:
    """Export, and print what the check found and where the result is."""
    settings = parse_settings(ExportSettings, argv, prog="export.py", description=__doc__)

    from orpo.command.display import console_out, print_table
    from orpo.exporting.card import line_that_runs_it
    from orpo.exporting.run import run_export

    result = run_export(settings)
    if result.check is not None:
        print_table(("export check", "found"), result.check.as_rows())
    for name, size in result.files.items():
        if size >= 2**20:
            console_out.print(f"{name}  {size / 2**20:.0f} MiB", soft_wrap=True)
    console_out.print(f"exported  {result.folder}", soft_wrap=True)
    console_out.print(f"to run it  {line_that_runs_it(result.folder, settings.to)}  (in that folder)", soft_wrap=True)
    if settings.push is not None:
        console_out.print(f"uploaded  {result.address or 'nothing, as told'}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
