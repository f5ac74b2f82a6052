"""The errors a user may see, each one clear line: the flag or file, the value, the remedy.

    OrpoError                exit 1
      SettingsError          exit 2   a flag or recipe key, or its value
      InputError             exit 1   a path, file, column or row of the user's
      OutputError            exit 1   a folder or file that cannot be written
      ModelError             exit 1   a model, adapter or tokenizer that cannot be used
      TrainingError          exit 1   training that cannot go on (non-finite loss, ...)

Library code raises these and never exits; only `orpo.command.run_command` turns them into an exit code.
"""

from typing import ClassVar


class OrpoError(Exception):
    """An expected failure; its message is one line for the user."""

    exit_code: ClassVar[int] = 1


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
