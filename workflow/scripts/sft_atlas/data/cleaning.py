"""The one rule of what happens to a text between its source and a prompt, for rows, items and worked examples alike.

- Line ends are `\\n`: a CR LF or a lone CR is how a file was written, and would be other tokens.
- Letters stay in the Unicode form they are written in; two rows that differ in form only (NFC) are one row twice.
- An instruction is stripped. Of an input and a completion, blank lines in front and white space at the end are cut, and
  so is a single space in front, which is how many files write a completion; an indentation of two columns or a tab is
  part of the text, since code without it is other code.
"""

import re
import unicodedata

_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")


def plain_lines(text: str) -> str:
    """The text with `\\n` at the end of each line, whatever was there."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def block(text: str) -> str:
    """An input or a completion: its indentation kept, what only surrounds it cut."""
    kept = _BLANK_LINES.sub("", text.rstrip())
    return kept if indented(kept) else kept.lstrip()


def indented(text: str) -> bool:
    """Whether a text begins with an indentation."""
    return text.startswith(("  ", "\t"))


def same(text: str) -> str:
    """What two texts have in common that are the same but for their Unicode form."""
    return unicodedata.normalize("NFC", text)
