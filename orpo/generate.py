"""Make preference pairs: from each prompt's replies one that uses emojis well, and one that does not.

    uv run orpo/generate.py
    uv run orpo/generate.py --prompts my_prompts.csv --limit 100 --out data/mine
    uv run orpo/generate.py --emoji-model openai:NAME --plain-model openai:NAME --base-url http://127.0.0.1:8000/v1
    uv run orpo/generate.py --from-adapter trained/SmolLM2-135M-Instruct-orpo --out data/second-round

By default one small model answers each prompt, shown a few answered messages first; the score places emojis into its
replies, and makes each pair differ in one thing: an emoji there at all, one that fits, not too many, in its place, none
where it has no place, or as the user wishes. The clearest pairs stand first. Every reply is kept from the moment it is
written, so the same command goes on where an earlier one was stopped. The key of an endpoint is read from the
environment variable OPENAI_API_KEY.
"""

from orpo.command.run_command import run_command
from orpo.command.settings import parse_settings
from orpo.generating.settings import GenerateSettings


def main(argv: list[str]) -> int:
    """Make the pairs, and print how many there are of each kind, what was dropped, and a few to look at."""
    settings = parse_settings(GenerateSettings, argv, prog="generate.py", description=__doc__)

    from orpo.command.display import console_out, print_table
    from orpo.generating.run import generate

    result = generate(settings)
    print_table(("preference pairs", "count"), result.count_rows())
    print_table(("means per reply", "with an emoji", "emojis", "score", "words", "most words"), result.side_rows())
    for pair in result.samples:
        lines = (
            f"\nprompt    {pair.prompt[-1]['content']}",
            f"chosen    {pair.chosen_score:.2f}  {pair.chosen_text}",
            f"rejected  {pair.rejected_score:.2f}  {pair.rejected_text}",
        )
        for line in lines:
            console_out.print(line, soft_wrap=True)
    console_out.print(f"\n{result.metrics['pairs']} pairs are in {result.folder}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
