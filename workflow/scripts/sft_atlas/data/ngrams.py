"""Words of any script, and runs of them."""

import re
from collections.abc import Iterator

from sft_atlas.data.cleaning import same

# letters and digits of spaced scripts as runs; CJK ideographs, kana and Hangul one by one
WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿가-힯豈-﫿]|[^\W_぀-ヿ㐀-䶿一-鿿가-힯豈-﫿]+")


def ngrams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    """Every run of n words; all the words if there are fewer."""
    words = WORD.findall(same(text).lower())
    if words and len(words) < n:
        yield tuple(words)
    for start in range(len(words) - n + 1):
        yield tuple(words[start : start + n])
