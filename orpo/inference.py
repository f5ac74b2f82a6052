"""Show what the tuned model answers, beside the base model: on held-out prompts, on your own, or in a conversation.

    uv run orpo/inference.py                              base and tuned on 8 held-out prompts
    uv run orpo/inference.py --summary                    measured on the 200 standard prompts, with intervals
    uv run orpo/inference.py --prompt "I got the job!"    your own message
    uv run orpo/inference.py --chat                       a conversation

The newest trained adapter is taken unless --adapter names one. The summary also asks 60 wishes for and against emojis
and 100 short questions, and measures perplexity on plain prose. Replies are kept in a cache: the base answers once.
Results go to stdout, progress to stderr.
"""

from orpo.command.run_command import run_command
from orpo.command.settings import parse_settings
from orpo.comparing.settings import InferenceSettings


def main(argv: list[str]) -> int:
    """Compare base and tuned, and print what they said and how they did."""
    settings = parse_settings(InferenceSettings, argv, prog="inference.py", description=__doc__)

    from orpo.comparing.run import run_inference

    result = run_inference(settings)
    if result is None:  # a conversation
        return 0

    from orpo.comparing.tables import print_json, print_side_by_side, print_summary, write_picture

    comparison = result.comparison
    shown = settings.show_count() or len(comparison.held_out.prompts)
    if settings.json:
        print_json(comparison, result.facts)
        return 0
    print_side_by_side(comparison, shown)
    print_summary(comparison)
    if settings.picture is not None:
        write_picture(settings.picture, comparison, shown)
    return 0


if __name__ == "__main__":
    run_command(main)
