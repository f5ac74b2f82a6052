"""Talk to base and tuned model on a page, judge replies and pairs, and answer other programs.

    uv run orpo/serve.py                                  the page and the endpoint, on http://127.0.0.1:8000
    uv run orpo/serve.py --adapter trained/a --adapter trained/b --port 8001
    uv run orpo/serve.py --export-votes data/votes        the votes as preference pairs, for train.py --data

One base model is in memory, and the adapters on it are switched on and off. Other programs ask
http://127.0.0.1:8000/v1 as they would OpenAI's API. An address other than this machine's own asks for a token, taken
from ORPO_SERVE_TOKEN or made and printed once.
"""

from orpo.command.run_command import run_command
from orpo.command.settings import parse_settings
from orpo.serving.settings import ServeSettings


def main(argv: list[str]) -> int:
    """Serve until Ctrl-C, or write the votes as preference pairs."""
    settings = parse_settings(ServeSettings, argv, prog="serve.py", description=__doc__)

    from orpo.command.display import console_out
    from orpo.serving.command_lines import training_line
    from orpo.serving.run import export, run_server

    if settings.export_votes is None:
        run_server(settings)
        return 0
    done = export(settings)
    left_out = "".join(f", {reason} {count}" for reason, count in done.left_out.items())
    console_out.print(f"{done.pairs} pairs{left_out and f' (left out{left_out[1:]})'}", soft_wrap=True)
    console_out.print(f"train on them: {training_line(done.folder)}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
