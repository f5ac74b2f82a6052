"""What flows through the product, typed and without torch: messages, prompts, replies, pairs."""
