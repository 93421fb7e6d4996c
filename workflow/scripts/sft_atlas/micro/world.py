"""The micro world: its words and facts, what texts and questions share, and the rule for held-out questions."""

import random
import zlib
from collections.abc import Sequence

# English word -> (Japanese, Chinese), by category.
COLOURS = {
    "red": ("赤い", "红色"),
    "blue": ("青い", "蓝色"),
    "green": ("緑の", "绿色"),
    "white": ("白い", "白色"),
    "black": ("黒い", "黑色"),
    "yellow": ("黄色い", "黄色"),
}
FOODS = {
    "rice": ("米", "米饭"),
    "bread": ("パン", "面包"),
    "fish": ("魚", "鱼"),
    "cheese": ("チーズ", "奶酪"),
    "soup": ("スープ", "汤"),
    "cake": ("ケーキ", "蛋糕"),
    "meat": ("肉", "肉"),
    "eggs": ("卵", "鸡蛋"),
}
ANIMALS = {
    "dog": ("犬", "狗"),
    "cat": ("猫", "猫"),
    "horse": ("馬", "马"),
    "bird": ("鳥", "鸟"),
    "bear": ("熊", "熊"),
    "lion": ("ライオン", "狮子"),
    "wolf": ("狼", "狼"),
    "cow": ("牛", "牛"),
}
PLACES = {
    "kitchen": ("台所", "厨房"),
    "garden": ("庭", "花园"),
    "school": ("学校", "学校"),
    "park": ("公園", "公园"),
    "office": ("会社", "公司"),
    "station": ("駅", "车站"),
    "library": ("図書館", "图书馆"),
    "shop": ("店", "商店"),
}
SPORTS = {
    "tennis": ("テニス", "网球"),
    "golf": ("ゴルフ", "高尔夫"),
    "chess": ("チェス", "象棋"),
    "rugby": ("ラグビー", "橄榄球"),
    "football": ("サッカー", "足球"),
    "hockey": ("ホッケー", "曲棍球"),
}
SIZES = {"big": ("大きい", "大"), "small": ("小さい", "小"), "old": ("古い", "旧"), "new": ("新しい", "新")}
CATEGORIES = {"colour": COLOURS, "food": FOODS, "animal": ANIMALS, "place": PLACES, "sport": SPORTS}
MODIFIERS = COLOURS | SIZES
NOUNS = FOODS | ANIMALS | PLACES
WORDS = COLOURS | FOODS | ANIMALS | PLACES | SPORTS
LEXICON = WORDS | SIZES
# What is known about each country, with the Japanese and the Chinese word for it.
FACT_KINDS = {
    "colour": ("色", "颜色"),
    "food": ("食べ物", "食物"),
    "animal": ("動物", "动物"),
    "sport": ("スポーツ", "运动"),
}
LANGUAGES = ("Japanese", "Chinese")

NAMES = ["Tom", "Mia", "Sam", "Ana", "Ben", "Eva", "Leo", "Zoe", "Max", "Ida", "Kai", "Joy"]
ITEMS = ["apples", "books", "coins", "cards", "pens", "balls", "cups", "keys"]
COMPARATIVES = [("older", "younger"), ("taller", "shorter"), ("faster", "slower"), ("richer", "poorer")]

FUNCTIONS = ["f", "g", "h", "run", "calc", "step", "go", "act", "use", "fn"]
PARAMETERS = ["x", "y", "n", "a", "k", "v"]
_REDUCTIONS = {
    "takes the first of": "{x}[0]",
    "takes the last of": "{x}[-1]",
    "takes the length of": "len({x})",
    "takes the sum of": "sum({x})",
    "takes the maximum of": "max({x})",
    "takes the minimum of": "min({x})",
}
_OPERATIONS = {"adds {k} to": "+", "subtracts {k} from": "-", "multiplies by {k}": "*", "divides by {k}": "/"}
_FOLLOWING = {"adds {k}": "+", "subtracts {k}": "-", "multiplies by {k}": "*", "divides by {k}": "/"}

_STORIES = (
    ("{person} goes to the {place} with a {animal}.", ("person", "place", "animal")),
    ("In the {place} {person} eats {food}.", ("place", "person", "food")),
    ("{person} sees a {colour} {animal}.", ("person", "colour", "animal")),
    ("{person} gives {food} to the {animal} in the {place}.", ("person", "food", "animal", "place")),
    ("A {colour} {animal} plays {sport} with {person}.", ("colour", "animal", "sport", "person")),
)
STORY_POOLS: dict[str, list[str]] = {"person": NAMES, **{kind: list(words) for kind, words in CATEGORIES.items()}}

_COUNTRIES = (
    "Zorland Pelia Marland Tivia Kanland Lumia Breland Solia Fenland Draria Visland Noria Halland Quenia Ostland Galia "
    "Wenland Rukia Jasland Cilia Bovland Dunia Yarland Edoria Fosland Hexia Idland Kobia Lurland Mopia Nadland Opia "
    "Pugland Rasia Sibland Tolia Ubland Wexia Ximland Zedia Arland Betia Cozland Dumia Gorland Jekia Okland Svenia"
)
COUNTRIES = _COUNTRIES.split()


def _facts() -> dict[str, dict[str, str]]:
    rng = random.Random(7)
    return {country: {kind: rng.choice(list(CATEGORIES[kind])) for kind in FACT_KINDS} for country in COUNTRIES}


FACTS = _facts()

# Share of the question keys of a topic that is held out. Facts are split by country, of which there are few;
# phrases to translate are few as well. All other topics have thousands of keys.
HELD_OUT_SHARE = {"knowledge": 0.5, "translation": 0.3}
DEFAULT_HELD_OUT_SHARE = 0.2


def held_out(topic: str, key: Sequence[object]) -> bool:
    """Whether the question of a topic with this key may appear in benchmarks only.

    The rule is a checksum of the key, so that it needs no list and no seed: datasets, benchmarks and
    pre-training questions agree on it whatever their seeds are. Only the question form is held out:
    raw pre-training text may state the same facts.
    """
    share = HELD_OUT_SHARE.get(topic, DEFAULT_HELD_OUT_SHARE)
    return zlib.crc32("|".join(map(str, (topic, *key))).encode()) < share * 2**32


def phrase(modifier: str, noun: str, language: str) -> str:
    """A modifier and a noun in Japanese or Chinese."""
    column = LANGUAGES.index(language)
    return MODIFIERS[modifier][column] + ("", "的")[column] + NOUNS[noun][column]


def arithmetic(rng: random.Random) -> tuple[int, str, int, int]:
    """A sum or difference with a small second number, as (a, sign, b, result)."""
    sign, b = rng.choice("+-"), rng.randint(1, 3)
    a = rng.randint(1 if sign == "+" else b, 9)
    return a, sign, b, a + b if sign == "+" else a - b


def function(rng: random.Random) -> tuple[str, str, str, str]:
    """A one-line function as (name, parameter, description, returned expression)."""
    name, x, k = rng.choice(FUNCTIONS), rng.choice(PARAMETERS), rng.randint(1, 9)
    kind = rng.random()
    if kind < 0.4:
        words, sign = rng.choice(list(_OPERATIONS.items()))
        return name, x, f"{words.format(k=k)} {x}", f"{x} {sign} {k}"
    words, expression = rng.choice(list(_REDUCTIONS.items()))
    reduced = f"{words} {x}", expression.format(x=x)
    if kind < 0.7:
        return name, x, *reduced
    more, sign = rng.choice(list(_FOLLOWING.items()))
    return name, x, f"{reduced[0]} and {more.format(k=k)}", f"{reduced[1]} {sign} {k}"


def story(rng: random.Random) -> tuple[str, dict[str, str]]:
    """A one-sentence story and what it mentions, by kind."""
    template, kinds = rng.choice(_STORIES)
    slots = {kind: rng.choice(STORY_POOLS[kind]) for kind in kinds}
    return template.format(**slots), slots


def two_owners(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """Two people with an animal each, in words and as pairs."""
    pairs = list(zip(rng.sample(NAMES, 2), rng.sample(list(ANIMALS), 2), strict=True))
    return " ".join(f"{name} has a {animal}." for name, animal in pairs), pairs
