"""Worked examples before a question: chosen by its subject, and never the question itself unless a study says so.

An example is the item itself if it asks the same: a row of the items' own source has the same text, and so has a
copy of it in another one. White space does not count.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import Any

from sft_atlas.data.prompt import completion, prompt
from sft_atlas.errors import DataError
from sft_atlas.study.model import Template

Asked = tuple[str, str]
"""Group (subject) and question of an item or example."""


def same_question(instruction: str) -> str:
    """What two texts of one question have in common."""
    return " ".join(instruction.split())


def fewest_examples(items: Iterable[Asked], examples: Iterable[Asked], keep_own: bool = False) -> int:
    """How many worked examples each item has at least: those of its group, or all there are, without itself."""
    shown = [(group, same_question(question)) for group, question in examples]
    of_group, same = Counter(group for group, _ in shown), Counter(shown)
    anywhere = Counter(question for _, question in shown)

    def available(group: str, question: str) -> int:
        found, own = (of_group[group], same[group, question]) if of_group[group] else (len(shown), anywhere[question])
        return found - (0 if keep_own else own)

    return min(available(group, same_question(question)) for group, question in items)


class WorkedExamples:
    """The first `shots` examples of a question's own group (of all, where no example has it), answered.

    `keep_own` leaves an item among its own examples, as some published definitions do.
    """

    def __init__(self, template: Template, examples: list[dict[str, Any]], shots: int, keep_own: bool = False) -> None:
        self.template, self.shots, self.keep_own = template, shots, keep_own
        self.all = [(same_question(example["instruction"]), example) for example in examples]
        self.by_group: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for question, example in self.all:
            self.by_group[example["group"]].append((question, example))

    def text(self, doc: dict[str, Any]) -> str:
        """What stands before an item: each example as in training, and a gap.

        Raises:
            DataError: there are too few.
        """
        return "".join(
            prompt(self.template, example["instruction"]) + completion(self.template, example["example"]) + "\n\n"
            for _, example in self._chosen(doc)
        )

    def holds(self, doc: dict[str, Any]) -> bool:
        """Whether an item is among its own examples."""
        return any(question == same_question(doc["instruction"]) for question, _ in self._chosen(doc))

    def _chosen(self, doc: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        own = None if self.keep_own else same_question(doc["instruction"])
        fitting = self.by_group.get(doc["group"]) or self.all
        chosen = list(islice((pair for pair in fitting if pair[0] != own), self.shots))
        if len(chosen) < self.shots:
            raise DataError(
                f"item {doc['item']}: {self.shots} worked examples are asked for, found {len(chosen)} that fit it"
                + (", itself left out" if len(chosen) < len(fitting) else "")
            )
        return chosen
