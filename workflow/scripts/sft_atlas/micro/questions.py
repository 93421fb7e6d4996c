"""Question generators per topic: rows of supervised fine-tuning datasets and items of benchmarks.

Each question has a key, the slots that identify its content. ``world.held_out`` splits the keys: datasets
(and the questions in pre-training text) draw from one side, benchmarks from the other.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Literal

from sft_atlas.micro.world import (
    ANIMALS,
    CATEGORIES,
    COLOURS,
    COMPARATIVES,
    COUNTRIES,
    FACT_KINDS,
    FACTS,
    FOODS,
    ITEMS,
    LANGUAGES,
    MODIFIERS,
    NAMES,
    NOUNS,
    PLACES,
    STORY_POOLS,
    WORDS,
    arithmetic,
    function,
    held_out,
    phrase,
    story,
    two_owners,
)


@dataclass(frozen=True)
class Example:
    """One row of a dataset; the completion has no leading space and no end mark."""

    instruction: str
    completion: str


@dataclass(frozen=True)
class Item:
    """One benchmark item; without choices the answer is to be generated and matched exactly."""

    instruction: str
    choices: list[str] | None
    answer: str


@dataclass(frozen=True)
class Question:
    """A question with its answer, its key for the split, and four choices where they make sense."""

    key: tuple[object, ...]
    instruction: str
    answer: str
    choices: tuple[str, ...] = ()


Generator = Callable[[Random], Question]


def _choices(rng: Random, answer: str, pool: Iterable[str]) -> tuple[str, ...]:
    wrong = rng.sample([word for word in pool if word != answer], 3)
    return tuple(rng.sample([answer, *wrong], 4))


def math(rng: Random) -> Question:
    """A word problem; the answer is the equation."""
    a, sign, b, result = arithmetic(rng)
    name, other = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS)
    added = (
        f"{name} has {a} {item} and gets {b} more. How many {item} does {name} have?",
        f"{name} has {a} {item}. {other} has {b} {item}. How many {item} do they have?",
    )
    taken = (
        f"{name} has {a} {item} and gives {b} to {other}. How many {item} does {name} have?",
        f"{name} has {a} {item} and loses {b}. How many {item} does {name} have?",
    )
    return Question((a, sign, b, item), rng.choice(added if sign == "+" else taken), f"{a} {sign} {b} = {result}")


def code(rng: Random) -> Question:
    """A one-line Python function from its description."""
    name, x, description, expression = function(rng)
    answer = f"def {name}({x}): return {expression}"
    return Question((name, x, description), f"Write a function {name} that {description}.", answer)


def knowledge(rng: Random) -> Question:
    """A fact about a country."""
    country, kind = rng.choice(COUNTRIES), rng.choice(list(FACT_KINDS))
    name = rng.choice(NAMES)
    forms = (
        f"What is the {kind} of {country}?",
        f"Which {kind} does {country} have?",
        f"{name} asks: what is the {kind} of {country}?",
        f"{name} is from {country}. Which {kind} is that?",
    )
    answer = FACTS[country][kind]
    return Question((country,), rng.choice(forms), answer, _choices(rng, answer, CATEGORIES[kind]))


def comprehension(rng: Random) -> Question:
    """A short story and a question about one of the things it mentions."""
    if rng.random() < 0.3:
        text, pairs = two_owners(rng)
        name, answer = rng.choice(pairs)
        both = [animal for _, animal in pairs]
        others = rng.sample([animal for animal in ANIMALS if animal not in both], 2)
        choices = tuple(rng.sample(both + others, 4))
        return Question(("owners", name, *pairs), f"{text} What does {name} have?", answer, choices)
    text, slots = story(rng)
    kind = rng.choice(list(slots))
    answer = slots[kind]
    key = (kind, *slots.values())
    return Question(key, f"{text} What is the {kind} in the story?", answer, _choices(rng, answer, STORY_POOLS[kind]))


def _comparison(rng: Random) -> Question:
    pair = rng.choice(COMPARATIVES)
    stated, asked = rng.choice(pair), rng.choice(pair)
    first, second, *others = rng.sample(NAMES, 4)
    answer = first if stated == asked else second
    choices = tuple(rng.sample([first, second, *others], 4))
    key = ("comparison", stated, asked, first, second)
    return Question(key, f"{first} is {stated} than {second}. Who is {asked}?", answer, choices)


def _number_comparison(rng: Random) -> Question:
    first, second, *others = rng.sample(range(10), 4)
    asked = rng.choice(("bigger", "smaller"))
    answer = str(max(first, second) if asked == "bigger" else min(first, second))
    choices = tuple(str(number) for number in rng.sample([first, second, *others], 4))
    return Question(("number", asked, first, second), f"Which is {asked}, {first} or {second}?", answer, choices)


def _animal_rule(rng: Random) -> Question:
    animal, colour, name = rng.choice(list(ANIMALS)), rng.choice(list(COLOURS)), rng.choice(NAMES)
    text = f"Every {animal} is {colour}. {name} has a {animal}. What colour is it?"
    return Question(("animal rule", animal, colour, name), text, colour, _choices(rng, colour, COLOURS))


def _place_rule(rng: Random) -> Question:
    place, food, name = rng.choice(list(PLACES)), rng.choice(list(FOODS)), rng.choice(NAMES)
    text = f"Every {place} has {food}. {name} is in a {place}. What food is there?"
    return Question(("place rule", place, food, name), text, food, _choices(rng, food, FOODS))


def reasoning(rng: Random) -> Question:
    """A comparison of two people or numbers, or a rule to apply."""
    return rng.choice((_comparison, _number_comparison, _animal_rule, _place_rule))(rng)


def instructions(rng: Random) -> Question:
    """An order about words or people, to be carried out to the letter."""
    first, second = rng.sample(list(WORDS), 2)
    name, other = rng.sample(NAMES, 2)
    place = rng.choice(list(PLACES))
    orders: tuple[tuple[tuple[str, ...], str, str], ...] = (
        (("greet", name, other), f"Say hello to {name} and {other}.", f"Hello, {name} and {other}!"),
        (("repeat", first, second), f"Repeat the words {first} and {second}.", f"{first} and {second}"),
        (("reverse", first, second), f"Write {first} after {second}.", f"{second} {first}"),
        (("twice", first, second), f"Write {first} two times and then {second}.", f"{first} {first} {second}"),
        (("send", name, place), f"Tell {name} to go to the {place}.", f"{name}, go to the {place}!"),
        (("ask", name, first), f"Ask {name} for {first}.", f"{name}, give me {first}!"),
    )
    return Question(*rng.choice(orders))


def translation(rng: Random, language: str | None = None) -> Question:
    """A two-word phrase to be put into Japanese or Chinese."""
    modifier, noun = rng.choice(list(MODIFIERS)), rng.choice(list(NOUNS))
    language = language or rng.choice(LANGUAGES)
    forms = (f"Translate {modifier} {noun} into {language}.", f"How do you say {modifier} {noun} in {language}?")
    return Question((language, modifier, noun), rng.choice(forms), phrase(modifier, noun, language))


GENERATORS: dict[str, Generator] = {
    "code": code,
    "math": math,
    "knowledge": knowledge,
    "comprehension": comprehension,
    "reasoning": reasoning,
    "instructions": instructions,
    "translation": translation,
}
# The general dataset mixes all topics, most of all instructions and translation.
_GENERAL = {"instructions": 5.0, "translation": 4.0} | dict.fromkeys(
    ("code", "math", "knowledge", "comprehension", "reasoning"), 0.2
)
TOPICS = ("general", *GENERATORS)

Kind = Literal["generation", "multiple_choice"]
# Benchmark -> (topic of its questions, how it is scored).
_BENCHMARKS: dict[str, tuple[str, Kind]] = {
    "instructions": ("instructions", "generation"),
    "translation": ("translation", "generation"),
    "code": ("code", "generation"),
    "math": ("math", "generation"),
    "facts": ("knowledge", "generation"),
    "facts_choice": ("knowledge", "multiple_choice"),
    "reading": ("comprehension", "multiple_choice"),
    "logic": ("reasoning", "multiple_choice"),
}
BENCHMARKS: dict[str, Kind] = {name: kind for name, (_, kind) in _BENCHMARKS.items()}


def draw(topic: str, rng: Random, held: bool, generator: Generator | None = None) -> Question:
    """One question of a topic from the wanted side of the split."""
    if topic == "general":
        topic = rng.choices(list(_GENERAL), list(_GENERAL.values()))[0]
    generate = generator or GENERATORS[topic]
    while True:
        question = generate(rng)
        if held_out(topic, question.key) == held:
            return question


def _distinct(topic: str, count: int, rng: Random, held: bool) -> list[Question]:
    found: dict[str, Question] = {}
    misses = 0
    while len(found) < count:
        question = draw(topic, rng, held)
        misses = misses + 1 if question.instruction in found else 0
        found.setdefault(question.instruction, question)
        # After so many repetitions in a row hardly any question is left.
        if misses > 10 * len(found) + 100:
            raise ValueError(f"topic {topic!r} has only about {len(found)} distinct questions, {count} are wanted")
    return list(found.values())


def examples(topic: str, count: int, seed: int) -> list[Example]:
    """Distinct rows of a dataset; none of them is held out."""
    if topic not in TOPICS:
        raise ValueError(f"unknown topic {topic!r}; valid topics: {', '.join(TOPICS)}")
    rng = Random(f"dataset {topic} {seed}")
    return [Example(q.instruction, q.answer) for q in _distinct(topic, count, rng, held=False)]


def items(topic: str, count: int, seed: int) -> list[Item]:
    """Distinct items of a benchmark; all of them are held out."""
    if topic not in BENCHMARKS:
        raise ValueError(f"unknown benchmark topic {topic!r}; valid topics: {', '.join(BENCHMARKS)}")
    source, kind = _BENCHMARKS[topic]
    rng = Random(f"benchmark {topic} {seed}")
    return [
        Item(q.instruction, list(q.choices) if kind == "multiple_choice" else None, q.answer)
        for q in _distinct(source, count, rng, held=True)
    ]
