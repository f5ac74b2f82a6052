"""Fit how the sources of relevance mix, on emojis in replies written for this project.

    uv run --group builds python -m builds.relevance_model.mixing

Two fits over the same features: which of all emojis was picked (for suggestions), and whether an emoji in place is told
from others of equal frequency (for the score). It prints the weights, which stand as constants in `relevance.py`,
`meaning.py` and `picking.py` of `orpo/scoring`, and how well they do on the half that they were not fitted on.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from builds.relevance_model.sources import read_written_replies
from orpo.scoring import find_emojis
from orpo.scoring.meaning import KEYWORD_WEIGHT, MOST_KEYWORDS, SENSE_WEIGHT, Sense, meaning_model
from orpo.scoring.relevance import SMILEYS
from orpo.scoring.surroundings import Reply

FEATURES = ("sense, best", "keywords, best", "sense, reply", "keywords, reply", "sense, prompt", "keywords, prompt")
OTHERS = ("usual", "smiley", "smiley, happy")
RIVALS = 20


def features() -> tuple[torch.Tensor, torch.Tensor]:
    """Return [emojis in place, features, all emojis] and the number of each emoji in place."""
    model = meaning_model()
    smiley = np.isin(model.emojis, SMILEYS).astype(np.float32)
    rows, labels = [], []
    for written in read_written_replies():
        if written.label != "everyday" or not find_emojis(written.text):
            continue
        reply = Reply(written.text)
        whole, prompt = model.sense(reply.words), model.sense(written.prompt)
        for place in reply.occurrences:
            number = model.index.get(place.key)
            if number is not None:
                texts = [model.sense(place.clause), model.sense(place.before), whole, prompt]
                by_text = np.array([_both(text) for text in texts])  # [texts, 2, emojis]
                shared = [by_text[2, 0], by_text[2, 1], by_text[3, 0], by_text[3, 1]]
                rows.append([*by_text.max(axis=0), *shared, model.usualness, smiley, smiley * whole.mood])
                labels.append(number)
    return torch.tensor(np.array(rows), dtype=torch.float32), torch.tensor(labels)


def _both(sense: Sense) -> list[np.ndarray]:
    """Return the sense in deviations, and the keywords in quarters, of every emoji."""
    model = meaning_model()
    by_sense = model.sense_scores(sense)
    by_keyword = model.topic_scores(sense) - by_sense
    return [by_sense / SENSE_WEIGHT, by_keyword / KEYWORD_WEIGHT / MOST_KEYWORDS * 3]


def fit_picks(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the weights under which the picked emojis are likeliest among all (conditional logit)."""
    weights = torch.zeros(inputs.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        scores = torch.einsum("nfe,f->ne", inputs, weights)
        loss: torch.Tensor = torch.nn.functional.cross_entropy(scores, labels) + 1e-3 * (weights**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def main() -> None:
    """Fit and print."""
    inputs, labels = features()
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(labels), generator=generator)
    fitted, tested = order.tensor_split(2)
    weights = fit_picks(inputs[fitted], labels[fitted])
    scores = torch.einsum("nfe,f->ne", inputs[tested], weights)
    rank = (scores > scores.gather(1, labels[tested][:, None])).sum(1)
    print(f"{len(labels)} emojis; of the other half {[round(float((rank < k).float().mean()), 3) for k in (1, 3, 10)]}")
    weights = fit_picks(inputs, labels)
    print("picks   ", {name: round(float(w), 2) for name, w in zip(FEATURES + OTHERS, weights, strict=True)})
    rivals = labels[torch.randint(len(labels), (len(labels), RIVALS), generator=generator)]
    own = inputs.gather(2, labels[:, None, None].expand(-1, inputs.shape[1], 1))[..., 0].numpy()
    others = inputs.gather(2, rivals[:, None, :].expand(-1, inputs.shape[1], -1)).permute(0, 2, 1)
    other = others[rivals != labels[:, None]].numpy()
    joined = np.concatenate([own, other])
    answers = np.r_[np.ones(len(own)), np.zeros(len(other))]
    shares = np.r_[np.full(len(own), 1.0), np.full(len(other), len(own) / len(other))]
    model = LogisticRegression(C=1.0, max_iter=500).fit(joined, answers, sample_weight=shares)
    named = zip(FEATURES + OTHERS, model.coef_[0], strict=True)
    print("in place", {name: round(float(w), 2) for name, w in named}, round(float(model.intercept_[0]), 2))
    print("values in place", np.quantile(model.predict_proba(own)[:, 1], [0.01, 0.03, 0.05, 0.1, 0.25, 0.5]).round(3))


if __name__ == "__main__":
    main()
