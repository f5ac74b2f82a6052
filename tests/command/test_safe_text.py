"""What others wrote cannot steer the terminal, and no secret is shown or kept."""

import pytest

from orpo.command.safe_text import mask_address, mask_secrets, mask_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m", "a\ufffdred\ufffd"),
        ("\x1b]0;title\x07b", "\ufffdb"),
        ("\x1b]8;;http://x\x1b\\link", "\ufffdlink"),
        ("\x1b", "\ufffd"),
        ("\x9b31m\x08\x00", "\ufffd31m\ufffd\ufffd"),
        ("one\r\ntwo\tthree\rfour", "one\ntwo\tthree\ufffdfour"),
        ("user\u202egnp.exe\u202c \u2066x\u2069", "user\ufffdgnp.exe\ufffd \ufffdx\ufffd"),
        ("half \ud83c", "half \ufffd"),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿 👨‍👩‍👧 ❤️ 10\u202f% \u00a0é", "🏴󠁧󠁢󠁥󠁮󠁧󠁿 👨‍👩‍👧 ❤️ 10\u202f% \u00a0é"),
    ],
)
def test_text_of_others_cannot_move_the_cursor_or_reorder_what_is_seen(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:pass@word@host:1/v1", "http://***@host:1/v1"),
        ("me:word@host", "***@host"),
        ("https://host/v1/a@b", "https://host/v1/a@b"),
        ("https://host/v1?api_key=abc&n=1", "https://host/v1?api_key=***&n=1"),
        ("https://host/v1?n=1&X-Api-Key=abc#top", "https://host/v1?n=1&X-Api-Key=***#top"),
        ("https://host/v1?monkey=yes&max_tokens=9", "https://host/v1?monkey=yes&max_tokens=9"),
    ],
)
def test_what_is_secret_in_an_address_is_masked(address: str, shown: str) -> None:
    """`?api_key=...` reached run.json, the reply store and stderr."""
    assert mask_address(address) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "no answer from http://a:b@c/v1, nor from (https://d/?token=e)",
            "no answer from http://***@c/v1, nor from (https://d/?token=***",
        ),
        ("Incorrect API key provided: sk-proj-12345678.", "Incorrect API key provided: ***"),
        ("Authorization: Bearer 0123456789abcdef", "Authorization: Bearer ***"),
        ("hf_hub_download, a sk-learn model, me@example.com, the Bearer of news", None),
    ],
)
def test_secrets_in_any_text_are_masked_and_nothing_else(text: str, shown: str | None) -> None:
    assert mask_text(text) == (text if shown is None else shown)


def test_secrets_are_masked_by_name_and_counts_of_tokens_are_not() -> None:
    settings = {
        "api_key": "a",
        "hub_token": "b",
        "password": "c",
        "tokens": 3,
        "token_budget": 4,
        "nested": {"secret": "d"},
    }
    assert mask_secrets(settings) == {
        "api_key": "***",
        "hub_token": "***",
        "password": "***",
        "tokens": 3,
        "token_budget": 4,
        "nested": {"secret": "***"},
    }
