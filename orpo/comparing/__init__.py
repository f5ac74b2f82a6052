"""Base and tuned replies on held-out prompts: measured, shown side by side, reported."""
