"""About 1,000 texts that a converted tokenizer has to encode as the published one does."""

import random

SPEECH = [
    "The lighthouse keeper counts eleven gulls before breakfast.",
    "Don't forget: it's 7:45 a.m., isn't it?",
    "Ünsere Gäste fürchten naïve Cafés in Łódź.",
    "¿Cuándo llegó el último tren? ¡Ayer!",
    "Старый мост скрипит под снегом.",
    "Η θάλασσα είναι ήρεμη σήμερα.",
    "朝の市場で魚を三匹買いました。値段は千二百円です。",
    "ﾊﾝｶｸのカナと１２３ＡＢＣ",
    "山后面的小村庄昨天下了一场大雨，路很滑。",
    "山後面的小村莊昨天下了一場大雨。",
    "겨울 바다는 조용하고 차갑다.",
    "السوق القديم مزدحم في المساء",
    "השוק הישן עמוס בערב",
    "नदी के किनारे एक पुराना पेड़ है।",
    "ตลาดเช้าขายผลไม้สด",
    "Trời hôm nay đẹp quá, mình đi dạo nhé.",
]
CODE = [
    "def area(r):\n    if r < 0:\n        raise ValueError(r)\n    return 3.14159 * r ** 2\n",
    "for (int i = 0; i < n; ++i) { sum += a[i]; }",
    "\tif (x)\n\t\treturn y;\n",
    "SELECT name, COUNT(*) FROM birds WHERE size > 3.5 GROUP BY name HAVING COUNT(*) >= 2;",
    '{"key": [1, 2.5e-3, null], "other": "a\\nb"}',
    "<div class='box'>&nbsp;x</div>",
    "https://example.org/a_b/c?d=e%20f#g",
    "$\\frac{1}{2}\\sum_{i=1}^{n} x_i^2 \\le \\boxed{42}$",
]
SPACES = [
    " ",
    "  ",
    "   ",
    "        ",
    "\t",
    "\t\t",
    "\n",
    "\n\n",
    "\n\n\n",
    " \n ",
    "\r\n",
    "a  b   c    d",
    "end ",
    " start",
]
ODDITIES = [
    "🐧", "👩‍🔬🏽", "🇯🇵🇨🇳", "❤️ and ☎", "¼ ½ ①②③ Ⅳ", "ﬁ ﬂ", "e\u0301 \u00e9", "か\u3099 が", "\u1100\u1161",
    "a\u00a0b", "a\u3000b", "a\u200bb", "\ufeffa", "\u202eabc", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "𠮷野家", "\u0001\u0007", "…—–“”‘’",
    "1234567890", "3.14159,26", "0x1F600", "AAAAAAAAAAAAAAAAAAAAAAAA", "!!!!!!!!????", "----====----", "_______",
]  # fmt: skip
CONTROLS = [
    "<s>", "</s>", "<unk>", "<pad>", "<0x0A>", "<0xFF>", "<|endoftext|>", "<|im_start|>user", "<|im_end|>",
    "[INST] hi [/INST]", "<<SYS>>",
    "<bos>", "<eos>", "<|begin_of_text|>", "<|eot_id|>", "▁", "▁▁", "▁a", "##b", "Ġc", "[UNK]", "[CLS]",
]  # fmt: skip
# of any length: in many vocabularies runs of one character are pieces of their own
RUNS = [
    *(f"x{character * length}|" for character in " -=\t\n." for length in (9, 15, 16, 17, 18, 23, 29, 31, 47, 64, 100)),
    *("\n" + " " * length + "return x" for length in range(12, 44, 4)),
    "| Name" + " " * 25 + "| Size" + " " * 13 + "|\n|" + "-" * 30 + "|" + "-" * 18 + "|",
]
PROMPTS = [
    "###Question: What is the name of the river?\n###Answer:",
    "###Question: Sort these.\n3, 1, 2\n###Answer: 1, 2, 3",
    "### Instruction:\nSay it in French.\n\n### Response:\n",
]
COUNT = 1000


def texts(*own: str) -> list[str]:
    """The same texts at every call: each fragment alone, then random joins; `own` are the tokenizer's special tokens.

    Scripts with and without spaces, code, runs of white space, emoji, forms of one character, and texts that look like
    control tokens.
    """
    fragments = [*SPEECH, *CODE, *SPACES, *RUNS, *ODDITIES, *CONTROLS, *own, *PROMPTS]
    found = list(dict.fromkeys(fragments))
    found += [f"{PROMPTS[0]} {fragment}" for fragment in found]
    draw = random.Random(0)
    while len(found) < COUNT:
        parts = draw.choices(fragments, k=draw.randint(2, 5))
        found.append(draw.choice(["", " ", " ", "\n", "  "]).join(parts))
    return found
