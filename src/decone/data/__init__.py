"""Text in: corpora, tokenizers, and windows of token ids."""
