"""Kinds of files by their names."""

# what rows are read from
READABLE = (".jsonl", ".json", ".csv", ".parquet")
# some hub repositories hold the same weights a second time, in another layout
CONSOLIDATED = "consolidated*"
# what transformers makes a tokenizer of: one of these is enough
VOCABULARIES = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt")
