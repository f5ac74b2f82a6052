"""What can be found wrong before torch is even imported: the output folder and the text of the pairs."""

from orpo.command.output_folder import check_output_folder, check_resumable
from orpo.command.ranks import is_main_process
from orpo.records.pairs import PreferencePair
from orpo.training.data import read_checked_pairs
from orpo.training.settings import TrainSettings


def check_and_read(settings: TrainSettings) -> list[PreferencePair]:
    """Return the pairs to train on; a user's mistake is told within a second, not after the libraries are loaded."""
    if not settings.estimate and is_main_process():
        if settings.resume:
            check_resumable(settings.run_folder)
        else:
            check_output_folder(settings.run_folder, overwrite=settings.overwrite)
    return read_checked_pairs(settings)
