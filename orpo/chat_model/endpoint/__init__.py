"""An OpenAI-compatible endpoint as a chat model: addresses, options, one call and its failures. No torch."""
