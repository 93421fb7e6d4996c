"""Raw pre-training documents per domain, and the corpus of a base model."""

from collections.abc import Callable, Iterator
from functools import partial
from random import Random

from sft_atlas.micro import questions
from sft_atlas.micro.world import (
    ANIMALS,
    COLOURS,
    COMPARATIVES,
    COUNTRIES,
    FACT_KINDS,
    FACTS,
    FOODS,
    FUNCTIONS,
    ITEMS,
    LANGUAGES,
    LEXICON,
    MODIFIERS,
    NAMES,
    NOUNS,
    PARAMETERS,
    PLACES,
    WORDS,
    arithmetic,
    function,
    phrase,
    story,
    two_owners,
)


def web(rng: Random) -> str:
    """Everyday text: greetings, orders, words said again."""
    first, second = rng.sample(list(WORDS), 2)
    name, other = rng.sample(NAMES, 2)
    place = rng.choice(list(PLACES))
    return rng.choice(
        (
            f"{name} says hello to {other}. Hello, {other}! {other} says: Hello, {name}!",
            f"First {first}, then {second}: {first} {second}. {second} after {first}: {first} {second}.",
            f"{first} and {second}; {first} {first} {second}; {first} and {second}.",
            f"{name} says: {other}, give me {first}! So {other} gives {first} to {name}.",
            f"{name} tells {other} to go to the {place}. {name} says: {other}, go to the {place}!",
        )
    )


def facts(rng: Random) -> str:
    """What is known about a country."""
    country = rng.choice(COUNTRIES)
    known = FACTS[country]
    kinds = rng.sample(list(FACT_KINDS), 4)
    if rng.random() < 0.5:
        return f"{country}: " + ", ".join(f"{kind} {known[kind]}" for kind in kinds)
    return " ".join(f"The {kind} of {country} is {known[kind]}." for kind in kinds[:2])


def math(rng: Random) -> str:
    """Equations, or a word problem told with its solution."""
    if rng.random() < 0.6:
        return "; ".join("{} {} {} = {}".format(*arithmetic(rng)) for _ in range(4))
    a, sign, b, result = arithmetic(rng)
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    change = f"gets {b} more" if sign == "+" else f"loses {b}"
    return f"{name} has {a} {item} and {change}. So {a} {sign} {b} = {result}. Now {name} has {result} {item}."


def code(rng: Random) -> str:
    """A one-line function with a comment or a call."""
    name, parameter, description, expression = function(rng)
    definition = f"def {name}({parameter}): return {expression}"
    if rng.random() < 0.6:
        return f"# {name} {description}\n{definition}"
    return f"{definition}\nprint({name}({rng.choice(PARAMETERS)}))"


def stories(rng: Random) -> str:
    """A short story and what is in it."""
    if rng.random() < 0.3:
        text, pairs = two_owners(rng)
        return f"{text} So " + " and ".join(f"{name} has a {animal}" for name, animal in rng.sample(pairs, 2)) + "."
    text, slots = story(rng)
    kinds = rng.sample(list(slots), len(slots))
    return f"{text} In this story " + "; ".join(f"the {kind} is {slots[kind]}" for kind in kinds) + "."


def logic(rng: Random) -> str:
    """Comparisons and rules, each with its conclusion."""
    pick = rng.randrange(4)
    first, second = rng.sample(NAMES, 2)
    if pick == 0:
        stated, opposite = rng.sample(rng.choice(COMPARATIVES), 2)
        ends = rng.sample([f"{first} is {stated}", f"{second} is {opposite}"], 2)
        return f"{first} is {stated} than {second}. So {ends[0]} and {ends[1]}."
    if pick == 1:
        low, high = sorted(rng.sample(range(10), 2))
        ends = rng.sample([f"{high} is bigger", f"{low} is smaller"], 2)
        return "{} or {}: ".format(*rng.sample([low, high], 2)) + f"{ends[0]} and {ends[1]}."
    if pick == 2:
        animal, colour = rng.choice(list(ANIMALS)), rng.choice(list(COLOURS))
        return f"Every {animal} is {colour}. {first} has a {animal}. So it is {colour}."
    place, food = rng.choice(list(PLACES)), rng.choice(list(FOODS))
    return f"Every {place} has {food}. {first} is in a {place}. So there is {food}."


def foreign(rng: Random, language: str) -> str:
    """Japanese or Chinese: word and phrase lists, facts, and things that people see."""
    column = LANGUAGES.index(language)
    modifier, noun = rng.choice(list(MODIFIERS)), rng.choice(list(NOUNS))
    pick = rng.random()
    if pick < 0.3:
        word = rng.choice(list(LEXICON))
        return f"{word}: {LEXICON[word][column]}"
    if pick < 0.5:
        return f"{modifier} {noun}: {phrase(modifier, noun, language)}"
    if pick < 0.75:
        country, kind = rng.choice(COUNTRIES), rng.choice(list(FACT_KINDS))
        word = WORDS[FACTS[country][kind]][column]
        topic = FACT_KINDS[kind][column]
        return (f"{country}の{topic}は{word}です。", f"{country}的{topic}是{word}。")[column]
    name, place, thing = rng.choice(NAMES), PLACES[rng.choice(list(PLACES))][column], phrase(modifier, noun, language)
    return (f"{name}は{place}で{thing}を見ます。", f"{name}在{place}看{thing}。")[column]


_COPIED = [*LEXICON, *NAMES, *ITEMS, *COUNTRIES[::4], *FUNCTIONS, *PARAMETERS, *"0123456789"]


def copy(rng: Random) -> str:
    """A list of words and its repetition; it makes models learn to look back early."""
    words = rng.sample(_COPIED, rng.randint(3, 9))
    text = " ".join(words)
    return ". ".join([text] * (2 if len(words) > 4 else 3)) + "."


def _translation(language: str) -> questions.Generator:
    return partial(questions.translation, language=language)


# Domain -> (generator of its raw text, topic and generator of its questions). The domain of facts has no
# questions: its models know the facts but never saw them asked for, which is what fine-tuning brings out.
_SOURCES: dict[str, tuple[Callable[[Random], str], str | None, questions.Generator | None]] = {
    "web": (web, "instructions", None),
    "facts": (facts, None, None),
    "math": (math, "math", None),
    "code": (code, "code", None),
    "stories": (stories, "comprehension", None),
    "logic": (logic, "reasoning", None),
    "japanese": (partial(foreign, language="Japanese"), "translation", _translation("Japanese")),
    "chinese": (partial(foreign, language="Chinese"), "translation", _translation("Chinese")),
}
DOMAINS = tuple(_SOURCES)
_COPY_SHARES = (0.12, 0.03)  # in the first quarter of the corpus, and after it


def documents(
    mixture: dict[str, float],
    count: int,
    seed: int,
    prompt: Callable[[str], str],
    question_share: float = 0.05,
) -> Iterator[str]:
    """The pre-training corpus of one base model, document by document.

    ``mixture`` gives the relative weight of each domain. A share of the documents are questions with answers,
    rendered with ``prompt``, none of them held out.
    """
    unknown = sorted(set(mixture) - set(DOMAINS))
    if unknown or not mixture:
        raise ValueError(f"unknown or no domains: {unknown}; valid domains: {', '.join(DOMAINS)}")
    rng = Random(f"corpus {seed}")
    # Sorted: the same mixture gives the same corpus in whatever order it is written.
    domains = sorted(mixture)
    weights = [mixture[domain] for domain in domains]
    for index in range(count):
        if rng.random() < _COPY_SHARES[index >= count / 4]:
            yield copy(rng)
            continue
        write, topic, generator = _SOURCES[rng.choices(domains, weights)[0]]
        if topic and rng.random() < question_share:
            question = questions.draw(topic, rng, held=False, generator=generator)
            yield f"{prompt(question.instruction)} {question.answer}"
        else:
            yield write(rng)
