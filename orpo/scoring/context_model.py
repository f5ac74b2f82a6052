"""Which context an exchange stands in, told from the request and the reply; `builds/relevance_model/` trains it."""

import math
from functools import cache, lru_cache
from importlib import resources
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray

from orpo.scoring.encoder import static_encoder
from orpo.scoring.text_features import text_buckets

LABELS: Final = ("everyday", "grief", "crisis", "violence", "grave_illness", "legal", "code", "data", "formal")
SCALE: Final = 3.0  # of the encoder's vectors at the networks' entrance
STRONGEST_REPLY: Final = 3.0
_KINDS = ("request", "reply")
_LAYERS = ("hidden", "hidden_bias", "out", "idf", "words", "words_scale", "bias")
_SURELY_EVERYDAY = -3.0  # log odds; below, no profile shows any restraint
_WITHOUT_REQUEST = 1.5  # a text alone has to look that much graver

Array = NDArray[np.float32]


class ContextModel:
    """Networks and linear models that read requests and replies."""

    def __init__(self, arrays: dict[str, NDArray[np.number]]) -> None:
        """Take the arrays that the build made."""
        self._arrays = {
            name: array if name.endswith("_words") else array.astype(np.float32) for name, array in arrays.items()
        }
        self._request_share, self._reply_share, self._neutral, self._bias = map(float, arrays["fusion"])
        self._layers = {kind: tuple(self._arrays[f"{kind}_{name}"] for name in _LAYERS) for kind in _KINDS}
        self.logits = lru_cache(maxsize=4096)(self._logits)

    def tell(self, request: str, reply: str) -> tuple[float, str]:
        """Return the log odds that the exchange is no everyday one, and the likeliest label of it if it is none.

        Without a request the reply is read as one. What is asked weighs more than what is answered.
        """
        if not request.strip():
            if not reply.strip():
                return -STRONGEST_REPLY, LABELS[1]
            logits = self.logits("request", reply)
            odds = self._request_share * _graveness(logits) + self._bias - _WITHOUT_REQUEST
            return odds, LABELS[1 + int(logits[1:].argmax())]
        asked = self.logits("request", request)
        grave = self._request_share * _graveness(asked)
        at_most = grave + self._reply_share * STRONGEST_REPLY + self._bias
        if at_most < _SURELY_EVERYDAY:  # whatever the reply says; most exchanges end here
            return at_most, LABELS[1 + int(asked[1:].argmax())]
        answered = self.logits("reply", reply)
        limited = max(-STRONGEST_REPLY, min(STRONGEST_REPLY, _graveness(answered) - self._neutral))
        odds = grave + self._reply_share * limited + self._bias
        both = self._request_share * asked + self._reply_share * answered
        return odds, LABELS[1 + int(both[1:].argmax())]

    def _logits(self, kind: str, text: str) -> Array:
        """Return [labels], but for a constant: the mean of the networks' logits and those of the linear model."""
        hidden_weights, hidden_bias, out, idf, words, scale, bias = self._layers[kind]
        hidden = (static_encoder().encode(text) * np.float32(SCALE)) @ hidden_weights
        hidden += hidden_bias
        np.maximum(hidden, 0.0, out=hidden)
        buckets = text_buckets(text)
        weights = idf.take(buckets)
        weights /= max(float(np.sqrt(weights @ weights)), 1e-9)
        by_words = (weights @ words.take(buckets, axis=0)) * scale
        return np.asarray(hidden @ out + by_words + bias, dtype=np.float32)


def _graveness(logits: Array) -> float:
    grave: list[float] = logits[1:].tolist()
    most = max(grave)
    return most + math.log(sum(math.exp(value - most) for value in grave)) - float(logits[0])


@cache
def context_model() -> ContextModel:
    """Load the shipped model, once."""
    packed = resources.files("orpo.scoring").joinpath("data/contexts.npz").read_bytes()
    with np.load(BytesIO(packed), allow_pickle=False) as archive:
        return ContextModel({name: archive[name] for name in archive.files})
