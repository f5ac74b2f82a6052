"""The fast trainer: the same loss as TRL, packed and without logits."""
