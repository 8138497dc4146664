"""Everything that touches transformers: policies, prompts, and the log-probs of tokens."""
