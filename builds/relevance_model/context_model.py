"""Train what tells contexts apart, `orpo/scoring/data/contexts.npz`: from a request, and from the reply to it.

    uv run --group builds python -m builds.relevance_model.context_model

Small networks over the static encoder and a linear model over hashed words each read the request and the reply. How
far the reply counts beside the request is fitted on exchanges whose requests the networks have not seen. About two
minutes on one core.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier

from builds.relevance_model.linear_models import counts, inverse_frequency, weigh
from builds.relevance_model.sources import (
    read_bland_replies,
    read_messages,
    read_written_contexts,
    read_written_replies,
)
from orpo.scoring import strip_emojis
from orpo.scoring.context_model import LABELS, SCALE, STRONGEST_REPLY, ContextModel
from orpo.scoring.encoder import static_encoder
from orpo.scoring.text_features import BUCKET_BITS, plain_text, word_buckets

OUTPUT = Path(__file__).resolve().parents[2] / "orpo" / "scoring" / "data" / "contexts.npz"
HIDDEN, NETWORKS = 64, 4
WORDS_SHARE = 0.3  # of the linear model's logits beside the networks'
MESSAGES = 4000
REPLY_SHARE = 1.0  # of the reply's odds beside the request's
KEPT, AT = 0.97, 0.25  # this share of everyday exchanges stays below this probability, where a plain reply wins
# Taken off the log odds after that. Of held-out prompts answered "Okay.", everyday ones free of restraint and others
# that meet none: 0 leaves 188 of 198 and 2 of 62, 0.3 leaves 192 and 2, 0.5 leaves 193 and 4 (docs/experiments.md).
GENTLER = 0.3
SUSPECT = 2.0  # an "everyday" message that looks this grave was labelled in haste

Arrays = dict[str, NDArray[Any]]
Rows = list[tuple[str, str]]


@dataclass
class Trained:
    """Networks and a linear model that read one kind of text."""

    networks: list[MLPClassifier]
    words: LogisticRegression
    idf: NDArray[np.uint8]

    def logits(self, texts: list[str]) -> NDArray[np.float64]:
        """Return [texts, labels]."""
        vectors = encode(texts)
        deep = np.mean([network.predict_log_proba(vectors) for network in self.networks], axis=0)
        shallow: NDArray[np.float64] = self.words.decision_function(weigh(word_counts(texts), self.idf))
        return deep + WORDS_SHARE * shallow


def encode(texts: list[str]) -> NDArray[np.float32]:
    """Return the networks' input."""
    encoder = static_encoder()
    vectors: NDArray[np.float32] = np.array([encoder.encode(text) for text in texts], dtype=np.float32) * np.float32(
        SCALE
    )
    return vectors


def word_counts(texts: list[str]) -> Any:
    """Return the linear model's input, not yet weighed."""
    return counts([word_buckets(plain_text(text)) for text in texts], BUCKET_BITS)


def train(rows: Rows) -> Trained:
    """Train on (text, label)."""
    texts = [text for text, _ in rows]
    labels = [LABELS.index(label) for _, label in rows]
    vectors, words = encode(texts), word_counts(texts)
    idf = inverse_frequency(words, least=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the number of rounds is part of the regularisation
        networks = [
            MLPClassifier(
                (HIDDEN,), alpha=1e-2, max_iter=25, learning_rate_init=2e-3, random_state=seed, batch_size=128
            ).fit(vectors, labels)
            for seed in range(NETWORKS)
        ]
        linear = LogisticRegression(C=20, max_iter=120).fit(weigh(words, idf), labels)
    return Trained(networks, linear, idf)


def graveness(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log odds that a text is anything but everyday."""
    odds: NDArray[np.float64] = np.logaddexp.reduce(logits[:, 1:], axis=1) - logits[:, 0]
    return odds


def build() -> Arrays:
    """Train all, say how well unseen exchanges are told apart, and return the arrays that ship."""
    replies = read_written_replies()
    written = read_written_contexts()
    messages = _everyday_messages(written + [(reply.prompt, reply.label) for reply in replies])
    prompts = [(text, label) for text, label, _ in messages]
    answers = [(answer, label) for _, label, answer in messages]
    unseen = graveness(train(written + prompts).logits([reply.prompt for reply in replies]))
    texts = [strip_emojis(reply.text) for reply in replies]
    labels = np.array([reply.label != "everyday" for reply in replies])
    answered = np.zeros(len(replies))
    for fitted, tested in StratifiedKFold(5, shuffle=True, random_state=0).split(texts, labels):
        model = train([(texts[row], replies[row].label) for row in fitted] + answers)
        answered[tested] = graveness(model.logits([texts[row] for row in tested]))
    alone = LogisticRegression(C=10).fit(answered[:, None], labels)
    neutral = float(-alone.intercept_[0] / alone.coef_[0, 0])
    limited = np.clip(answered - neutral, -STRONGEST_REPLY, STRONGEST_REPLY)
    for share in (0.4, 0.7, REPLY_SHARE):
        _report(f"request and {share} of the reply", unseen + share * limited, labels)
    both = unseen + REPLY_SHARE * limited
    fusion = LogisticRegression(C=10).fit(both[:, None], labels)
    for name, odds in (("request", unseen), ("reply", answered), ("both", fusion.decision_function(both[:, None]))):
        _report(name, odds, labels)
    request = train(written + prompts + [(reply.prompt, reply.label) for reply in replies])
    # Unseen, "Okay." would look like anything, a grave reply too, and a question with it.
    bland = [(text, "everyday") for text in read_bland_replies()]
    reply_model = train([(text, reply.label) for text, reply in zip(texts, replies, strict=True)] + answers + bland)
    arrays = {**_pack("request", request), **_pack("reply", reply_model)}
    scale = float(fusion.coef_[0, 0])
    bias = float(np.log(AT / (1 - AT)) - scale * np.quantile(both[~labels], KEPT)) - GENTLER
    arrays["fusion"] = np.array([scale, scale * REPLY_SHARE, neutral, bias], dtype=np.float32)
    _check(arrays, request, [text for text, _ in written[:200]])
    return arrays


def _everyday_messages(labelled: Rows) -> list[tuple[str, str, str]]:
    """Return (message, label, reply) without those that a first model takes for grave."""
    rng = np.random.default_rng(0)
    rows = read_messages()
    first = train(labelled)
    odds = graveness(first.logits([text for text, _, _, _ in rows]))
    kept = [
        (text, label, reply)
        for (text, label, _, reply), grave in zip(rows, odds, strict=True)
        if label != "everyday" or grave < SUSPECT
    ]
    print(f"{len(rows) - len(kept)} of {len(rows)} messages look graver than labelled and are left out")
    code = [row for row in kept if row[1] != "everyday"]
    everyday = [row for row in kept if row[1] == "everyday"]
    return code + [everyday[number] for number in rng.permutation(len(everyday))[:MESSAGES]]


def _report(name: str, odds: NDArray[np.float64], grave: NDArray[np.bool_]) -> None:
    print(f"{name}: AUC {roc_auc_score(grave, odds):.4f}", flush=True)
    for kept in (0.99, 0.98, 0.97, 0.96, 0.95):
        limit = np.quantile(odds[~grave], kept)
        probability, seen = 1 / (1 + np.exp(-limit)), (odds[grave] > limit).mean()
        print(f"  {kept:.0%} of the everyday ones kept (probability {probability:.2f}): {seen:.3f} of the others seen")


def _pack(name: str, model: Trained) -> Arrays:
    weights = model.words.coef_ * WORDS_SHARE
    largest = np.abs(weights).max(axis=1, keepdims=True)
    return {
        f"{name}_hidden": np.concatenate([net.coefs_[0] for net in model.networks], axis=1).astype(np.float16),
        f"{name}_hidden_bias": np.concatenate([net.intercepts_[0] for net in model.networks]).astype(np.float32),
        # One network with all their hidden units says what the mean of their logits says.
        f"{name}_out": (np.concatenate([net.coefs_[1] for net in model.networks]) / NETWORKS).astype(np.float16),
        f"{name}_bias": (
            np.mean([net.intercepts_[1] for net in model.networks], axis=0) + model.words.intercept_ * WORDS_SHARE
        ).astype(np.float32),
        f"{name}_words": np.round(weights / largest * 127).astype(np.int8).T.copy(),
        f"{name}_words_scale": (largest[:, 0] / 127).astype(np.float32),
        f"{name}_idf": model.idf,
    }


def _check(arrays: Arrays, request: Trained, texts: list[str]) -> None:
    """Compare what ships with what was trained."""
    shipped = ContextModel(arrays)
    here = graveness(request.logits(texts))
    there = graveness(np.array([shipped.logits("request", text) for text in texts]))
    print(f"shipped and trained log odds differ by {np.abs(here - there).max():.3f} at most")


def main() -> None:
    """Train and write."""
    arrays: dict[str, Any] = build()  # numpy's own types take no mapping of arrays
    np.savez_compressed(OUTPUT, **arrays)
    print(f"{OUTPUT.stat().st_size / 1e6:.2f} MB: {OUTPUT}")


if __name__ == "__main__":
    main()
