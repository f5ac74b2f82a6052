"""OpenAI-compatible endpoints: their addresses, one call to one, and what its answer says."""
