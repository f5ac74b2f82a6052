"""The preference methods by name: what each reads, and its defaults with their source. No torch here: --help needs it.

The functions are in `losses`, and `objective` puts them to work.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

MethodName = Literal["orpo", "sft", "dpo", "ipo", "cpo", "simpo", "kto", "grpo"]
METHOD_NAMES: Final[tuple[MethodName, ...]] = get_args(MethodName)


@dataclass(frozen=True)
class Method:
    """What is known of a method.

    Attributes:
        title: Its name and paper.
        reads: The settings that it reads beside those of every method.
        beta: Its default beta; None where it has none.
        needs_reference: Whether the model without its adapter takes part.
        rate_factor: What the learning rate of the LoRA rule is multiplied by.
    """

    title: str
    reads: frozenset[str]
    beta: float | None = None
    needs_reference: bool = False
    rate_factor: float = 1.0


# Without a likelihood term that holds them, chosen log-probabilities fall at the rates of supervised training: the
# SimPO paper (arXiv 2405.14734, table 7) tunes DPO, IPO, CPO, KTO and SimPO between 3e-7 and 1e-6 for full weights,
# about a tenth of ORPO's 8e-6 (arXiv 2403.07691, appendix C). The same ratio is kept here.
_A_TENTH: Final = 0.1

METHODS: Final[dict[MethodName, Method]] = {
    # beta is the paper's lambda, 0.1 in its appendix C for replies that differ as a whole. Pairs that differ in an
    # emoji share nearly all tokens, so the odds ratio pulls on one or two of them and needs more weight: 0.25 left
    # an emoji in 47 % of the replies to grave prompts, 1.5 and 5 in 3 to 12 % (docs/experiments.md).
    "orpo": Method("ORPO (Hong, Lee & Thorne 2024, arXiv 2403.07691)", frozenset({"beta", "nll"}), 5.0),
    "sft": Method("supervised fine-tuning on the chosen replies", frozenset({"nll"})),
    # 0.1 in the paper's appendix B.
    "dpo": Method(
        "DPO (Rafailov et al. 2023, arXiv 2305.18290)", frozenset({"beta", "label_smoothing"}), 0.1, True, _A_TENTH
    ),
    # tau; 0.1 is TRL's default, and within the SimPO paper's grid.
    "ipo": Method("IPO (Azar et al. 2023, arXiv 2310.12036)", frozenset({"beta"}), 0.1, True, _A_TENTH),
    # 0.1 and a likelihood of weight 1: the paper's section 4 and equation 5.
    "cpo": Method(
        "CPO (Xu et al. 2024, arXiv 2401.08417)",
        frozenset({"beta", "nll", "label_smoothing", "likelihood_weight"}),
        0.1,
        rate_factor=_A_TENTH,
    ),
    # 2.0, and a margin of 0.5 times beta: the authors' advice for untuned models.
    "simpo": Method(
        "SimPO (Meng, Xia & Chen 2024, arXiv 2405.14734)",
        frozenset({"beta", "margin"}),
        2.0,
        rate_factor=_A_TENTH,
    ),
    # 0.1 and equal weights, since a pair has one reply of each kind: the paper's sections 4.2 and 4.4.
    "kto": Method(
        "KTO (Ethayarajh et al. 2024, arXiv 2402.01306)",
        frozenset({"beta", "desirable_weight", "undesirable_weight"}),
        0.1,
        True,
        _A_TENTH,
    ),
    # docs/methods.md says what R's log ratio does, and what beta stands against. 8 replies are TRL's default.
    "grpo": Method(
        "GRPO (Shao et al. 2024, arXiv 2402.03300) on R(y)",
        frozenset({"beta", "group_size", "kl_weight", "ratio_weight"}),
        20.0,
        True,
        _A_TENTH,
    ),
}

GROUP_SIZE: Final = 8
KL_WEIGHT: Final = 0.04  # the paper's section 4.2
RATIO_WEIGHT: Final = 1.0  # R(y) as it stands in the project's first description
