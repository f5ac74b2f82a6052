"""A small network from the sense of a tweet to the emoji that it carried; it joins the linear model over n-grams."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

HIDDEN = 256
EPOCHS, BATCH, RATE, DECAY, DROPPED = 8, 256, 2e-3, 1e-2, 0.2
SCALE = 5.0  # of vectors of length one, which would be too quiet an input
SHARE = 0.3  # of the network's logits beside the linear model's; chosen on 5,000 training tweets


def train_tweet_network(vectors: NDArray[np.float32], labels: list[int]) -> dict[str, NDArray[Any]]:
    """Return the weights, scaled for the linear model's logits; classes are balanced."""
    torch.manual_seed(0)
    targets = torch.tensor(labels)
    counts = torch.bincount(targets).float()
    weights = len(labels) / counts / len(counts)
    inputs = torch.from_numpy(vectors * SCALE)
    network = torch.nn.Sequential(
        torch.nn.Linear(inputs.shape[1], HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Dropout(DROPPED),
        torch.nn.Linear(HIDDEN, len(counts)),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - epoch / EPOCHS)
        for rows in torch.randperm(len(targets)).split(BATCH):
            loss = torch.nn.functional.cross_entropy(network(inputs[rows]), targets[rows], weight=weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    into, out = network[0], network[3]
    assert isinstance(into, torch.nn.Linear) and isinstance(out, torch.nn.Linear)
    return {
        "tweet_hidden": (into.weight.detach().T * SCALE).numpy().astype(np.float16),
        "tweet_hidden_bias": into.bias.detach().numpy().astype(np.float16),
        "tweet_out": (out.weight.detach().T * SHARE).numpy().astype(np.float16),
    }
