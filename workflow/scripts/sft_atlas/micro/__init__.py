"""The micro world: a small invented language world with its texts, questions, tokenizer and base models."""
