"""What every route works with."""

from dataclasses import dataclass

from orpo.records.replies import Sampling
from orpo.serving.engine import Engine
from orpo.serving.judgements import JudgementStore
from orpo.serving.models import Catalogue
from orpo.serving.settings import Limits, ServedModelSettings


@dataclass(frozen=True)
class Service:
    """The models, the thread that answers as them, and what holds where a request says nothing.

    Attributes:
        catalogue: The models' names.
        engine: Writes the replies.
        store: Keeps votes and reviews.
        sampling: How tokens are picked unless a request says.
        limits: What may be asked.
        base: How the base model was loaded.
        data: Data sets to review, beside those in data/.
    """

    catalogue: Catalogue
    engine: Engine
    store: JudgementStore
    sampling: Sampling
    limits: Limits
    base: ServedModelSettings
    data: tuple[str, ...] = ()
