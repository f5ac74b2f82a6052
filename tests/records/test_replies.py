"""Sampling's values are checked where they are made."""

import pytest

from orpo.command.errors import SettingsError, setting_named
from orpo.records.replies import Sampling


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -0.1), ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1), ("repetition_penalty", 0.0),
     ("max_new_tokens", 0)],
)  # fmt: skip
def test_a_sampling_value_out_of_range_names_its_field(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"^{name} {value}: ") as caught:
        Sampling(**{name: value})  # type: ignore[arg-type]
    assert caught.value.for_command().startswith(f"--{name.replace('_', '-')} {value}: ")


def test_a_command_may_give_a_field_another_name() -> None:
    with pytest.raises(SettingsError) as caught, setting_named("probe_temperature", instead_of="temperature"):
        Sampling(temperature=-1)
    assert caught.value.for_command() == "--probe-temperature -1: must be 0 (greedy) or above"
