"""The errors a user may see, each one clear line: the flag or file, the value, the remedy.

    OrpoError                exit 1
      SettingsError          exit 2   a flag or recipe key, or its value
      InputError             exit 1   a path, file, column or row of the user's
      OutputError            exit 1   a folder or file that cannot be written
      ModelError             exit 1   a model, adapter or tokenizer that cannot be used
      TrainingError          exit 1   training that cannot go on (non-finite loss, ...)
      ExportError            exit 1   an export that does not answer as the model it was made from

Library code raises these and never exits; only `orpo.command.run_command` turns them into an exit code.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import ClassVar

_settings_of_command: set[str] = set()


def as_flag(setting: str) -> str:
    """Return the flag of a settings field."""
    return f"--{setting.replace('_', '-')}"


def know_settings(names: Iterable[str]) -> None:
    """Let errors name these settings, those of the command that runs, as the flags that give them."""
    _settings_of_command.update(names)


def with_flags(text: str) -> str:
    """Return text in which each setting in backticks is named as its flag."""

    def named(match: re.Match[str]) -> str:
        return as_flag(match[1]) if match[1] in _settings_of_command else match[0]

    return re.sub("`([a-z_]+)`", named, text)


class OrpoError(Exception):
    """An expected failure; its message is one line for the user.

    Attributes:
        setting: The settings field whose value the message begins with, such as `max_new_tokens`; empty for none.
            Library code names the field; `for_command` makes a flag of it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{self.setting} {message}" if self.setting else message

    def for_command(self) -> str:
        """Return the message, with settings named as the flags that give them: its own, and those in backticks."""
        return with_flags(f"{as_flag(self.setting)} {self.args[0]}" if self.setting else str(self))


def causes_of(problem: BaseException) -> list[BaseException]:
    """Return an exception and what it came of, one after the other, without what was raised `from None`."""
    chain: list[BaseException] = []
    link: BaseException | None = problem
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return chain


@contextmanager
def setting_named(name: str, *, instead_of: str) -> Iterator[None]:
    """Name another setting in errors of the block, where a command gives it a name of its own (`emoji_model`)."""
    try:
        yield
    except OrpoError as problem:
        if problem.setting == instead_of:
            problem.setting = name
        raise


class SettingsError(OrpoError):
    """A flag or recipe key is unknown, or its value cannot be used."""

    exit_code: ClassVar[int] = 2


class InputError(OrpoError):
    """A path, file, column or row that the user gave is missing or not what it should be."""


class OutputError(OrpoError):
    """A folder or file cannot be written, or writing it would destroy something."""


class ModelError(OrpoError):
    """A model, adapter, tokenizer or chat template cannot be loaded or used."""


class TrainingError(OrpoError):
    """Training cannot go on, for example because the loss is no longer a finite number."""


class ExportError(OrpoError):
    """What was exported does not answer as the model that it was made from, or cannot be made from it."""
