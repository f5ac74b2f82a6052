"""Loading a base model with or without an adapter, and having it answer: batched, seeded, streamed, measured."""
