"""The tuned model in use: a page on this machine, an OpenAI-compatible endpoint, votes, and pairs judged by hand."""
