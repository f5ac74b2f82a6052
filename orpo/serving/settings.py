"""The settings of `serve`: every field is a flag, a recipe key and a line of `--help` at once."""

from dataclasses import dataclass
from pathlib import Path

from orpo.chat_model.settings import LocalModelSettings
from orpo.command.errors import SettingsError
from orpo.command.settings import require, setting, settings_group
from orpo.records.replies import Sampling


@dataclass(kw_only=True)
class ServedModelSettings(LocalModelSettings):
    """Which base model answers, and where it computes."""

    model: str | None = setting(None, "base model: a folder, a GGUF file or a Hub id; the adapters' own if not given")


@dataclass(kw_only=True)
class Limits:
    """What one client may ask of the server."""

    max_reply_tokens: int = setting(1024, "the most tokens that a request may ask for", at_least=1)
    max_waiting: int = setting(64, "requests that may wait; further ones are told to come again", at_least=1)
    max_body_kb: int = setting(256, "the largest request, in kB", at_least=1)


@dataclass(kw_only=True)
class ServeSettings:
    """What `serve` can be told."""

    adapter: list[Path] = setting([], "folders of adapters; the finished ones in trained/ if none is given")
    base_only: bool = setting(False, "load no adapter")
    host: str = setting("127.0.0.1", "the address to listen on; any other than this machine's own asks for a token")
    port: int = setting(8000, "the port to listen on; 0 for any that is free")
    allow_host: list[str] = setting([], "further names by which this machine may be called, such as a proxy's")
    store: Path | None = setting(None, "file that keeps votes and reviews (default: data/judgements.sqlite)")
    data: list[str] = setting([], "data sets to review, beside those in data/")
    export_votes: Path | None = setting(
        None, "write the votes as preference pairs to this new folder, and serve nothing"
    )
    overwrite: bool = setting(False, "let the votes replace an earlier export")
    limits: Limits = settings_group(Limits, "limits")
    base: ServedModelSettings = settings_group(ServedModelSettings, "base model")
    sampling: Sampling = settings_group(Sampling, "replies, where a request says nothing else")

    def __post_init__(self) -> None:
        require(bool(self.host.strip()), "--host", "''", "is empty; 127.0.0.1 is this machine alone")
        if self.base_only and self.adapter:
            raise SettingsError("--base-only loads no adapter, so --adapter does not go with it; choose one of them")
        if self.overwrite and self.export_votes is None:
            raise SettingsError("--overwrite concerns --export-votes alone; name its folder, or leave it out")
        longest, most = self.sampling.max_new_tokens, self.limits.max_reply_tokens
        require(longest <= most, "--max-new-tokens", longest, f"is more than --max-reply-tokens {most}; raise that too")
