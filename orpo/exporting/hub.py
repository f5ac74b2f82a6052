"""Upload of an export to the Hugging Face Hub: private unless told, and only after a yes."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orpo.chat_model.model_files import ADAPTER_CONFIG, is_offline, one_line, read_json
from orpo.command.display import console_err
from orpo.command.errors import OutputError, SettingsError
from orpo.command.output_folder import RECORD_NAME
from orpo.command.paths import public_name


@dataclass(frozen=True)
class Destination:
    """A repository to upload to.

    Attributes:
        name: OWNER/NAME.
        is_private: Whether it is, or is to be, private.
        exists: Whether it is there already; its files of other names stay.
    """

    name: str
    is_private: bool
    exists: bool


def find_destination(name: str, *, public: bool, yes: bool) -> Destination:
    """Find out before the work whether an upload can be: name, login, somebody to ask, and what is there already.

    The login is that of `hf auth login`, or the environment variable HF_TOKEN.

    Raises:
        SettingsError: The name is none, or nobody can be asked.
        OutputError: Nobody is logged in, the Hub refuses or cannot be reached, or a public repository is there.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as problem:
        raise SettingsError(f"{name}: is no name of a repository ({one_line(problem)})", setting="push") from None
    if not yes and not sys.stdin.isatty():
        raise SettingsError(f"{name}: asks before it uploads, and nobody can answer here; pass `yes`", setting="push")
    if is_offline():
        raise OutputError(f"{name}: HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it", setting="push")
    if get_token() is None:
        raise OutputError(
            f"{name}: nobody is logged in to the Hub; `hf auth login` does that, or set HF_TOKEN", setting="push"
        )
    with _told(name):
        api = HfApi()
        full = name if "/" in name else f"{api.whoami()['name']}/{name}"
        try:
            is_private = bool(api.model_info(full).private)
        except RepositoryNotFoundError:
            return Destination(full, not public, False)
    if not is_private and not public:
        raise OutputError(f"{full}: is there already and is public; pass `public`, or another name", setting="push")
    return Destination(full, is_private, True)


def upload(folder: Path, to: Destination, *, yes: bool) -> str | None:
    """Upload a folder but for its run.json, once somebody said yes; return the address, or None after a no."""
    from huggingface_hub import CommitOperationAdd, HfApi

    files = [file for file in folder.rglob("*") if file.is_file() and file.name != RECORD_NAME]
    size = sum(file.stat().st_size for file in files)
    what = f"{len(files)} files, {size / 2**20:.1f} MiB, to {to.name}"
    how = f"{'private' if to.is_private else 'PUBLIC'}, {'there already' if to.exists else 'new'}"
    if not yes and not _says_yes(f"upload {what} ({how})? [y/N] "):
        return None
    console_err.print(f"uploading {what} ({how})", soft_wrap=True)
    with _told(to.name):
        api = HfApi()
        if not to.exists:
            api.create_repo(to.name, private=to.is_private)
        added = [CommitOperationAdd(str(file.relative_to(folder)), _public_content(file)) for file in files]
        api.create_commit(to.name, added, commit_message=f"Upload {folder.name}")
        return f"{api.endpoint}/{to.name}"


def _public_content(file: Path) -> str | bytes:
    """Return the path of a file to upload, or its content where folders of this machine have to be left out."""
    if file.name != ADAPTER_CONFIG:
        return str(file)
    config = read_json(file)
    config["base_model_name_or_path"] = public_name(str(config["base_model_name_or_path"]))
    return json.dumps(config, indent=2, ensure_ascii=False).encode()


def _says_yes(question: str) -> bool:
    console_err.print(question, end="", soft_wrap=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Say in one line what the Hub did not do; the token is in no message."""
    from httpx import HTTPError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as problem:
        code = problem.response.status_code
        if code in (401, 403):
            reason = f"the Hub does not let this login write there ({code}); check the token's rights and the name"
        else:
            reason = f"the Hub answered {code} ({one_line(problem)}); try again"
        raise OutputError(f"{name}: {reason}", setting="push") from problem
    except (HTTPError, ConnectionError) as problem:
        reason = f"the Hub cannot be reached ({one_line(problem)}); check the network"
        raise OutputError(f"{name}: {reason}", setting="push") from problem
