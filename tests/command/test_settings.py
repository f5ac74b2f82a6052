"""Settings are flags, recipe keys and help at once; every mistake is one line that names flag or file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orpo.command.errors import InputError, SettingsError
from orpo.command.recipes import recipe_values
from orpo.command.settings import (
    is_settings_class,
    parse_settings,
    require,
    setting,
    settings_as_dict,
    settings_group,
    settings_of,
)


@dataclass(kw_only=True)
class AdapterSettings:
    """A group of settings with a prefix."""

    rank: int = setting(16, "rank of the adapter", at_least=1)
    targets: list[str] = setting(["all"], "layers with an adapter")


@dataclass(kw_only=True)
class LengthSettings:
    """A group of settings without a prefix."""

    max_length: int = setting(512, "tokens in all")


@dataclass(kw_only=True)
class BakeSettings:
    """A settings class with a field of every supported type."""

    learning_rate: float = setting(2e-4, "peak learning rate")
    epochs: int = setting(3, "passes over the data")
    model: str = setting("embedded", "base model", short="-m")
    data: Path | None = setting(None, "where the pairs are")
    steps: int | None = setting(None, "stop after this many steps")
    kind: Literal["fast", "trl"] = setting("fast", "which trainer")
    device: str = setting("auto", "where to compute", choices=["auto", "cpu"])
    targets: list[str] = setting(["q_proj", "v_proj"], "layers to adapt")
    seeds: list[int] = setting([], "seeds to run")
    overwrite: bool = setting(False, "replace an earlier result")
    api_key: str | None = setting(None, "key of the endpoint", secret=True)
    temperature: float = setting(0.7, "100 % random above 1")
    system: str = setting("", "system prompt, or @FILE", file_allowed=True)
    adapter: AdapterSettings = settings_group(AdapterSettings, "the adapter", prefix="adapter")
    lengths: LengthSettings = settings_group(LengthSettings, "lengths")

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, "--learning-rate", self.learning_rate, "must be above 0")


@dataclass(kw_only=True)
class AskSettings:
    """Settings without a flag."""

    question: str = setting("", "what to ask", positional=True)
    files: list[Path] = setting([], "what to read", positional=True)
    port: int = setting(0, "where to listen", at_least=0, below=65536)


def bake(*argv: str) -> BakeSettings:
    return parse_settings(BakeSettings, list(argv), prog="orpo/bake.py", description="Bake.")


def bake_recipe(tmp_path: Path, text: str, *argv: str) -> BakeSettings:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return bake("--recipe", str(file), *argv)


def test_without_flags_the_defaults_hold_and_lists_are_not_shared() -> None:
    first, second = bake(), bake()
    first.targets.append("o_proj")
    assert second == BakeSettings() and second.targets == ["q_proj", "v_proj"]


def test_every_type_comes_out_of_flags() -> None:
    settings = bake(
        *("--learning-rate", "5e-6", "--epochs", "1e3", "-m", "local/model", "--data", "~/pairs", "--steps", "10"),
        *(
            "--kind",
            "trl",
            "--device",
            "cpu",
            "--targets",
            "a",
            "b",
            "--seeds",
            "1",
            "2",
            "--overwrite",
            "--temperature=0",
        ),
    )
    assert settings == BakeSettings(
        learning_rate=5e-6,
        epochs=1000,
        model="local/model",
        data=Path("~/pairs").expanduser(),
        steps=10,
        kind="trl",
        device="cpu",
        targets=["a", "b"],
        seeds=[1, 2],
        overwrite=True,
        temperature=0.0,
    )


def test_an_optional_number_can_be_set_back_to_none_and_a_list_to_empty(tmp_path: Path) -> None:
    settings = bake_recipe(tmp_path, "steps: 7\n", "--steps", "none", "--targets", "--no-overwrite")
    assert settings.steps is None and settings.targets == [] and not settings.overwrite


def test_a_list_given_twice_adds_up_and_the_default_does_not_count() -> None:
    assert bake("--targets", "a", "--targets", "b", "c").targets == ["a", "b", "c"]


@pytest.mark.parametrize(
    "argv",
    [
        ["--data", "a", "--data", "b"],
        ["-m", "a", "--model", "a"],
        ["--overwrite", "--no-overwrite"],
        ["--recipe", "a.yaml", "--recipe", "b.yaml"],
        ["--adapter-rank", "1", "--adapter-rank=2"],
    ],
)
def test_one_value_given_twice_is_refused(argv: list[str]) -> None:
    """`train.py --data a --data b` trained on b alone, in silence."""
    with pytest.raises(SettingsError, match="is given twice"):
        bake(*argv)


def test_groups_have_flat_flags_and_nested_values(tmp_path: Path) -> None:
    settings = bake("--adapter-rank", "4", "--adapter-targets", "q", "--max-length", "9")
    assert settings.adapter == AdapterSettings(rank=4, targets=["q"]) and settings.lengths.max_length == 9
    nested = bake_recipe(tmp_path, "adapter:\n  rank: 4\n  targets: [q]\nlengths: {max-length: 9}\n")
    assert nested == bake_recipe(tmp_path, "adapter_rank: 4\nadapter-targets: q\nmax_length: 9\n") == settings
    assert bake_recipe(tmp_path, "adapter: {rank: 4}\n", "--adapter-rank", "2").adapter.rank == 2
    assert settings_as_dict(settings)["adapter_rank"] == 4 and "adapter" not in settings_as_dict(settings)
    with pytest.raises(SettingsError, match="--adapter-rank 0"):
        bake("--adapter-rank", "0")


def test_groups_are_not_shared_and_names_in_them_must_differ() -> None:
    first, second = bake(), bake()
    first.adapter.targets.append("x")
    assert second.adapter.targets == ["all"]

    @dataclass(kw_only=True)
    class Twice:
        max_length: int = setting(1, "one")
        lengths: LengthSettings = settings_group(LengthSettings, "lengths")

    with pytest.raises(TypeError, match="two settings of one name"):
        settings_of(Twice)


def test_a_text_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Be kind. 🙂\n", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert bake("--system", f"@{tmp_path}/system.txt").system == "Be kind. 🙂"
    assert bake_recipe(tmp_path, f"system: '@{tmp_path}/system.txt'\n").system == "Be kind. 🙂"
    assert bake("--model", "@me").model == "@me"
    for name in ("absent", "binary", ""):
        with pytest.raises(InputError, match=rf"--system @{tmp_path}/{name}: "):
            bake("--system", f"@{tmp_path}/{name}")


def test_text_that_says_none_stays_text() -> None:
    assert bake("--model", "none").model == "none"
    assert bake("--api-key", "none").api_key == "none"


def test_a_recipe_converts_by_the_type_of_the_field(tmp_path: Path) -> None:
    """PyYAML reads `5e-6` as text; the field is a float, so a float it becomes."""
    settings = bake_recipe(
        tmp_path,
        "command: bake\nlearning-rate: 5e-6\nepochs: 2.0\nmodel: 7\ndata: some/where\nseeds: 3\n"
        "targets: [k_proj]\noverwrite: yes\nsteps:\n",
    )
    assert settings.learning_rate == 5e-6
    assert settings.epochs == 2 and isinstance(settings.epochs, int)
    assert settings.model == "7"
    assert settings.data == Path("some/where")
    assert settings.seeds == [3] and settings.targets == ["k_proj"]
    assert settings.overwrite is True and settings.steps is None


@pytest.mark.parametrize("text", ["no", "1.10", "0x10", "2024-01-01", "~x", "true", "null", "''"])
def test_text_in_a_recipe_is_what_stands_there(tmp_path: Path, text: str) -> None:
    """YAML reads False, 1.1, 16 and a date."""
    if text == "null":
        assert bake_recipe(tmp_path, "api_key: null\n").api_key is None
    else:
        assert bake_recipe(tmp_path, f"model: {text}\n").model == text.strip("'")


def test_flags_win_over_the_recipe(tmp_path: Path) -> None:
    assert bake_recipe(tmp_path, "epochs: 9\nkind: trl\n", "--epochs", "1") == BakeSettings(epochs=1, kind="trl")


def test_an_empty_recipe_changes_nothing(tmp_path: Path) -> None:
    assert bake_recipe(tmp_path, "# only a comment\n") == BakeSettings()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--learning-rate", "0"], ["--learning-rate", "0", "above 0"]),
        (["--learning-rate", "fast"], ["--learning-rate", "'fast'", "not a number"]),
        (["--learning-rate", "nan"], ["--learning-rate", "finite"]),
        (["--epochs", "1.5"], ["--epochs", "'1.5'", "whole number"]),
        (["--epochs", "inf"], ["--epochs", "whole number"]),
        (["--epochs"], ["--epochs", "expected one argument"]),
        (["--kind", "slow"], ["--kind", "'slow'", "fast, trl"]),
        (["--device", "tpu"], ["--device", "'tpu'", "auto, cpu"]),
        (["--data", " "], ["--data", "empty"]),
        (["--learning-rat", "1"], ["--learning-rat", "--learning-rate"]),
        (["--epoch=1"], ["unknown flag --epoch;", "--epochs"]),
        (["word"], ["'word'", "quotes"]),
        (["--overwrite=maybe"], ["--overwrite", "ignored explicit argument 'maybe'"]),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(argv: list[str], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        bake(*argv)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learnin_rate: 1\n", ["'learnin_rate'", "recipe.yaml", "learning_rate"]),
        ("epochs: many\n", ["'epochs'", "recipe.yaml", "'many'", "whole number"]),
        ("epochs: true\n", ["'epochs'", "'true'", "whole number"]),
        ("epochs:\n", ["'epochs'", "nothing", "one value"]),
        ("model: [a, b]\n", ["'model'", "several values", "one value"]),
        ("model: {a: b}\n", ["'model'", "a group", "one value"]),
        ("targets: [a, [b]]\n", ["'targets'", "several values"]),
        ("epochs: " + "[" * 5000 + "]" * 5000, ["recipe.yaml", "not YAML", "deeply"]),
        ("epochs: &a [*a]\n", ["recipe.yaml", "not YAML", "deeply"]),
        ("overwrite: false\nadapter: {rank: 4, rank: 5}\n", ["'rank'", "twice"]),
        ("adapter: {rnak: 4}\n", ["'adapter: rnak'", "adapter_rank"]),
        ("adapter: {epochs: 4}\n", ["'adapter: epochs'", "unknown"]),
        ("adapter: {rank: 4}\nadapter_rank: 4\n", ["'adapter_rank'", "twice"]),
        ("adapter: {rank: many}\n", ["'adapter: rank'", "'many'", "whole number"]),
        ("adapter: 4\n", ["unknown key 'adapter'", "adapter_rank"]),
        ("overwrite: perhaps\n", ["'overwrite'", "'perhaps'"]),
        ("epochs: 1\nepochs: 2\n", ["'epochs'", "twice"]),
        ("learning-rate: 1\nlearning_rate: 2\n", ["twice"]),
        ("- epochs\n", ["recipe.yaml", "key: value"]),
        ("epochs: [1\n", ["recipe.yaml", "not YAML", "line 2"]),
        ("command: train\n", ["recipe.yaml", "'train'", "'bake'"]),
        ("recipe: other.yaml\n", ["'recipe'"]),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        bake_recipe(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_recipe_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.yaml", tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(InputError, match="--recipe"):
            bake("--recipe", str(path))


def test_help_shows_the_docstring_and_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_settings(BakeSettings, ["--help"], prog="bake.py", description="Bakes.\n\n    uv run orpo/bake.py\n")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "Bakes.\n\n    uv run orpo/bake.py\n" in shown
    assert "passes over the data (default: 3)" in shown
    assert "layers to adapt (default: q_proj v_proj)" in shown
    assert "replace an earlier result (default: off)" in shown
    assert "100 % random above 1 (default: 0.7)" in shown
    assert "--recipe FILE" in shown and "--verbose" in shown
    assert "\nthe adapter:\n  --adapter-rank N" in shown and "\nlengths:\n  --max-length N" in shown


def test_positional_settings() -> None:
    settings = parse_settings(AskSettings, ["why?", "a", "b", "--port", "1"], prog="ask", description=None)
    assert settings == AskSettings(question="why?", files=[Path("a"), Path("b")], port=1)
    assert parse_settings(AskSettings, ["--port", "1"], prog="ask", description=None) == AskSettings(port=1)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--port", "-1"], "--port -1: must be at least 0 and below 65536"),
        (["--port", "65536"], "--port 65536: must be at least 0 and below 65536"),
    ],
)
def test_numbers_out_of_bounds_are_refused_by_their_flag(argv: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"^{says}$"):
        parse_settings(AskSettings, argv, prog="ask", description=None)
    recipe = tmp_path / "ask.yaml"
    recipe.write_text(f"port: {argv[1]}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=says):
        parse_settings(AskSettings, ["--recipe", str(recipe)], prog="ask", description=None)


def test_settings_become_plain_values_with_secrets_masked() -> None:
    plain = settings_as_dict(BakeSettings(data=Path("pairs"), api_key="abc"))
    assert plain["data"] == "pairs" and plain["api_key"] == "***" and plain["targets"] == ["q_proj", "v_proj"]
    assert settings_as_dict(BakeSettings())["api_key"] is None


def test_written_settings_read_back_as_a_recipe(tmp_path: Path) -> None:
    """`run.json` repeats a run: JSON is YAML, and its settings are a recipe."""
    import json

    settings = BakeSettings(learning_rate=5e-6, data=Path("pairs"), targets=[], overwrite=True)
    assert bake_recipe(tmp_path, json.dumps(settings_as_dict(settings))) == settings


@given(st.floats(min_value=1e-300, allow_nan=False, allow_infinity=False), st.integers(), st.booleans())
def test_numbers_survive_the_way_through_flags(rate: float, epochs: int, overwrite: bool) -> None:
    flags = [f"--learning-rate={rate!r}", f"--epochs={epochs}", "--overwrite" if overwrite else "--no-overwrite"]
    assert bake(*flags) == BakeSettings(learning_rate=rate, epochs=epochs, overwrite=overwrite)


def test_only_classes_of_settings_count_as_settings() -> None:
    @dataclass
    class Plain:
        number: int = 1

    assert is_settings_class(BakeSettings)
    assert not any(is_settings_class(other) for other in (Plain, BakeSettings(), int, "BakeSettings"))


def test_an_unsupported_type_is_found_by_its_author(tmp_path: Path) -> None:
    @dataclass(kw_only=True)
    class Odd:
        table: frozenset[str] = setting(frozenset(), "not for a flag")

    (tmp_path / "odd.yaml").write_text("table: 1\n", encoding="utf-8")
    with pytest.raises(TypeError, match="frozenset"):
        recipe_values(Odd, tmp_path / "odd.yaml")


@dataclass(kw_only=True)
class HalfSettings:
    name: str = setting("", "a text")
    out: Path | None = setting(None, "a path")


@pytest.mark.parametrize("text", ["Hi \udcff", "Hi \ud83c"])
def test_half_a_character_is_told_by_its_flag(text: str) -> None:
    """A byte that is no UTF-8 comes from the command line so; tokenizers ended in a TypeError and exit 70."""
    for flag in ("--name", "--out"):
        with pytest.raises(SettingsError, match=f"{flag}: .*holds half of a character"):
            parse_settings(HalfSettings, [flag, text], prog="half.py", description="")
