"""Compare adapters with prompting, examples, best-of-n and the base on the same held-out prompts, with intervals.

    uv run orpo/report.py --prompting --few-shot 5 --best-of 4
    uv run orpo/report.py --adapter trained/a --adapter trained/b --seeds 3 --out reports/two
    uv run orpo/report.py --adapter trained/a --judge Qwen/Qwen2.5-7B-Instruct --update-cards
    uv run orpo/report.py --adapter trained/a --judge openai:NAME --judge-base-url http://127.0.0.1:8000/v1

Every approach answers the 200 standard prompts, 60 wishes for and against emojis and 100 short questions; perplexity
is measured on plain prose. A figure is called better only where the 95 % interval of the difference leaves no doubt.
Writes report.html (one file, no network), report.json and run.json to a new folder; a second run takes replies from the
cache.
"""

from orpo.command.run_command import run_command
from orpo.command.settings import parse_settings
from orpo.comparing.settings import ReportSettings


def main(argv: list[str]) -> int:
    """Compare, write the folder, and print the main figures."""
    settings = parse_settings(ReportSettings, argv, prog="report.py", description=__doc__)

    from orpo.command.display import console_out
    from orpo.comparing.report import PAGE_NAME, run_report
    from orpo.comparing.tables import print_judgements, print_main_figures

    report = run_report(settings)
    print_main_figures(report.comparison)
    print_judgements(report.judgements)
    console_out.print(f"report  {report.folder / PAGE_NAME}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
