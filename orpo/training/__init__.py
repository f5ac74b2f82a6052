"""From preference pairs to a LoRA adapter: the loss, the batches and the two trainers."""
