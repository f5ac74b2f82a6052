"""Conversations and their system prompt."""

from orpo.records.messages import last_message, system_message, user_message, with_system


def test_a_system_prompt_comes_first_and_replaces_an_earlier_one() -> None:
    once = with_system("Be brief.", user_message("Hi"))
    assert [message["role"] for message in once] == ["system", "user"]
    assert with_system("Be long.", once)[0]["content"] == "Be long."
    assert with_system("Be long.", once)[1:] == user_message("Hi")
    assert with_system(None, once) == with_system("  ", once) == once
    assert system_message(once) == "Be brief." and system_message(user_message("Hi")) == system_message([]) == ""
    assert last_message(once) == "Hi"
