"""Tokenizers of published bases: converted once, faithfully, audited against the raw file.

A base ships `tokenizer.json`, a sentencepiece model, or both, beside a `tokenizer_config.json` that names a class.
These classes rebuild what they read: transformers 5 takes a unigram model for BPE, drops or adds the mark of a first
word, or replaces a pre-tokenizer. So the stage of bases writes a `tokenizer.json` of its own, to be read as it stands:

- where the base has a `tokenizer.json`, that file is the truth; else its sentencepiece model is, converted here as its
  own description says (unigram or BPE, byte fallback, normaliser, mark of the first word, extra white space);
- begin tokens are those of the base (`add_bos_token` where it says so, else what its file does, else one BOS, as
  transformers 4 did for sentencepiece models); no token is added at the end, since prompts are to be continued;
- `audit` compares about 1,000 texts with the raw file, id by id. One difference is let pass, and counted: where a
  unigram model finds two ways to cut a text equally likely (a run of nine dashes as 2 2 2 2 1 or 1 2 2 2 2),
  sentencepiece's choice hangs on the rounding of its sums in fp32, those here are in fp64.

How what is written here is opened is said in models/tokenizer.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from sft_atlas.errors import DataError
from sft_atlas.files import read_json, write_json
from sft_atlas.models.tokenizer import control_ids, open_tokenizer
from sft_atlas.stages.base.audit_texts import texts

MARK = "▁"
NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
KEPT = ("chat_template", "model_max_length", "padding_side", "truncation_side")
# types of a piece in sentencepiece's protocol
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
FP32_ROUNDING = 2.0**-23
Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Raw:
    """A published tokenizer: what it is made of, and its own encoding of a text, without what it adds around it."""

    file: Path
    backend: Tokenizer
    encode: Encode
    equally_likely: Callable[[list[int], list[int]], bool] = lambda *_: False


def convert(source: Path, target: Path) -> dict[str, Any] | None:
    """Write `tokenizer.json` and `tokenizer_config.json` of a base, audited; returns facts for the manifest.

    None: the folder holds neither `tokenizer.json` nor a sentencepiece model, and is left to transformers.

    Raises:
        DataError: a file cannot be read or is of a kind that cannot be converted, or ids differ (see `audit`).
    """
    config = _config(source)
    raw = _read(source, config)
    if raw is None:
        return None
    named = _named(raw, config)
    before = _begin(raw.backend, config, named.get("bos_token"), raw.file.name == "tokenizer.json")
    _add_before(raw.backend, before)
    raw.backend.no_truncation()
    raw.backend.no_padding()
    raw.backend.save(str(target / "tokenizer.json"))
    settings = {key: config[key] for key in KEPT if config.get(key) is not None} | named
    write_json(target / "tokenizer_config.json", settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
    audited = audit(target, raw, _ids(raw.backend, before))
    return {"made_from": raw.file.name, "adds": before, **audited}


def audit(folder: Path, raw: Raw, before: list[int]) -> dict[str, int]:
    """Compare the converted tokenizer with the raw file; counts texts, and those cut in another, equally likely way.

    Raises:
        DataError: ids differ for a text, something follows a prompt, or it begins with two BOS; names text and ids.
    """
    tokenizer = open_tokenizer(folder)
    own = [str(token) for token in tokenizer.all_special_tokens]
    compared, ties = texts(*own), 0
    for text in compared:
        found, expected = list(tokenizer(text)["input_ids"]), [*before, *raw.encode(text)]
        if found != expected and raw.equally_likely(found[len(before) :], expected[len(before) :]):
            ties += 1
        elif found != expected:
            raise DataError(
                f"{raw.file}: converted, it gives other ids for {text[:80]!r}: found {_around(found, expected)}, "
                f"expected {_around(expected, found)}; this base cannot be compared with others, leave it out"
            )
    if tokenizer.bos_token_id is not None and before.count(tokenizer.bos_token_id) > 1:
        raise DataError(f"{raw.file}: it begins every text with {len(before)} tokens, more than one BOS")
    return {"audited_texts": len(compared), "equally_likely": ties}


def check_ends(folder: Path) -> None:
    """Refuse a tokenizer, left to transformers, that puts anything after a prompt or more than one BOS before it.

    Raises:
        DataError: names the tokens.
    """
    tokenizer = open_tokenizer(folder)
    ids = list(tokenizer("a prompt")["input_ids"])
    steering = control_ids(tokenizer)
    if (ids and ids[-1] in steering) or (ids[:1] == ids[1:2] and ids[0] in steering):
        said = tokenizer.convert_ids_to_tokens(ids)
        raise DataError(
            f"{folder}: the tokenizer reads 'a prompt' as {said}; expected one BOS in front at most, and no EOS"
        )


def _around(ids: list[int], other: list[int]) -> str:
    first = next((i for i, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b), min(len(ids), len(other)))
    return f"{ids[first : first + 6]} from token {first + 1} on, {len(ids)} in all"


def _config(source: Path) -> dict[str, Any]:
    """What tokenizer_config.json and special_tokens_map.json say; the former counts where both do."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (source / name).is_file():
            try:
                found |= read_json(source / name)
            except ValueError as error:
                raise DataError(
                    f"{source / name}: not valid JSON ({error}); copy the base's file there again"
                ) from None
    if (source / "chat_template.jinja").is_file():
        found.setdefault("chat_template", (source / "chat_template.jinja").read_text(encoding="utf-8"))
    return found


def _read(source: Path, config: dict[str, Any]) -> Raw | None:
    file = source / "tokenizer.json"
    if file.is_file():
        try:
            backend, reference = Tokenizer.from_file(str(file)), Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises Exception itself
            raise DataError(
                f"{file}: cannot be read as a tokenizer ({error}); copy the base's file there again"
            ) from None
        reference.encode_special_tokens = True
        reference.no_truncation()
        reference.no_padding()
        return Raw(file, backend, lambda text: list(reference.encode(text, add_special_tokens=False).ids))
    for file in sorted(source.glob("*.model")):
        if (proto := _proto(file)) is not None:
            return _from_sentencepiece(file, proto, source, config)
    return None


def _proto(file: Path) -> Any:
    """A sentencepiece model's description; None for another file of this suffix, such as a tiktoken table."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    # made at run time, where type checkers do not see it
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(file.read_bytes())
    except DecodeError:
        return None
    return proto if proto.pieces else None


def _from_sentencepiece(file: Path, proto: Any, source: Path, config: dict[str, Any]) -> Raw:
    from sentencepiece import SentencePieceProcessor

    kinds = {1: _unigram, 2: _bpe}
    trained, normalised = proto.trainer_spec, proto.normalizer_spec
    if trained.model_type not in kinds or trained.treat_whitespace_as_suffix or not normalised.escape_whitespaces:
        raise DataError(
            f"{file}: a sentencepiece model of a kind that is not converted; expected unigram or bpe with the mark of "
            "white space in front of words"
        )
    backend = Tokenizer(kinds[trained.model_type](proto))
    _normalise(backend, proto)
    parts = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    parts += [decoders.Strip(" ", 1, 0)] if normalised.add_dummy_prefix else []
    backend.decoder = decoders.Sequence(parts)
    special = [p.piece for p in proto.pieces if p.type in (CONTROL, UNKNOWN)]
    backend.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
    if trained.model_type == 2 and not normalised.add_dummy_prefix:
        backend.add_tokens([AddedToken(p, special=False, normalized=MARK in p) for p in _user_defined(proto)])
    _add_declared(backend, file, source, config)
    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(proto.SerializeToString())
    raw = Raw(file, backend, lambda text: list(processor.EncodeAsIds(text)))
    return replace(raw, equally_likely=partial(_equally_likely, proto)) if trained.model_type == 1 else raw


def _equally_likely(proto: Any, found: list[int], expected: list[int]) -> bool:
    """Whether two ways to cut one text differ by no more than the rounding of sums in fp32."""
    cut = [[proto.pieces[number] for number in ids] for ids in (found, expected)]
    same_text = len({"".join(piece.piece for piece in pieces) for pieces in cut}) == 1
    one, other = (sum(piece.score for piece in pieces) for pieces in cut)
    return same_text and abs(one - other) <= FP32_ROUNDING * abs(other) * len(expected)


def _unigram(proto: Any) -> models.Unigram:
    """Pieces with their log probabilities; what is never to be made out of text gets none that could win."""
    scores = [p.score for p in proto.pieces if p.type == NORMAL]
    greatest, least = max(scores), min(scores) - 1e6
    vocabulary = []
    for piece in proto.pieces:
        score = piece.score
        if piece.type == USER_DEFINED:
            # as sentencepiece scores them (unigram_model.cc), so that they always win
            score = len(piece.piece.encode()) * greatest - 0.1
        elif piece.type != NORMAL:
            score = least
        vocabulary.append((piece.piece, score))
    return models.Unigram(vocabulary, proto.trainer_spec.unk_id, proto.trainer_spec.byte_fallback)


def _bpe(proto: Any) -> models.BPE:
    """Merges in the order of the scores of what they make, as sentencepiece applies them.

    Of equal scores, such as runs of spaces have, sentencepiece takes the leftmost, so that a run grows from its left
    end; what makes the longer piece first does the same here, where an order is all that can be said.
    """
    ids = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    able = {p.piece: p.score for p in proto.pieces if p.type in (NORMAL, USER_DEFINED, UNUSED)}
    merges = []
    for piece, score in able.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in able and right in able:
                merges.append((-score, -len(piece), -len(left), ids[left], ids[right], (left, right)))
    unknown = next((p.piece for p in proto.pieces if p.type == UNKNOWN), None)
    ordered = [pair for *_, pair in sorted(merges)]
    return models.BPE(
        ids,
        ordered,
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=proto.trainer_spec.byte_fallback,
        # a user-defined piece stands apart by then and is taken whole (see `_normalise`)
        ignore_merges=bool(_user_defined(proto)) and proto.normalizer_spec.add_dummy_prefix,
    )


def _user_defined(proto: Any) -> list[str]:
    """Pieces that are always taken whole, longest first."""
    return sorted((p.piece for p in proto.pieces if p.type == USER_DEFINED), key=lambda piece: (-len(piece), piece))


def _normalise(backend: Tokenizer, proto: Any) -> None:
    spec = proto.normalizer_spec
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        # the library maps one character as seen at a time, sentencepiece whatever is longest: compose them first
        steps += [normalizers.NFC()] if "nfkc" in spec.name else []
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
        # at the end, and only there, a mark that is written in the text counts as a space
        steps.append(normalizers.Replace(Regex(rf"\A +|[ {MARK}]+\z"), ""))
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(MARK))
    steps.append(normalizers.Replace(" ", MARK))
    backend.normalizer = normalizers.Sequence(steps)
    if proto.trainer_spec.model_type == 2 and spec.add_dummy_prefix and (written := _user_defined(proto)):
        # as added tokens they would cut the text before it is normalised, and each part would get a mark of its own
        backend.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(_literal, written))), "isolated")


def _literal(text: str) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


def _add_declared(backend: Tokenizer, file: Path, source: Path, config: dict[str, Any]) -> None:
    """Tokens that the base's configuration adds behind its vocabulary, at the ids it says.

    Raises:
        DataError: one of them would get another id.
    """
    declared: dict[int, Any] = {int(number): token for number, token in config.get("added_tokens_decoder", {}).items()}
    if (source / "added_tokens.json").is_file():
        declared = {number: token for token, number in read_json(source / "added_tokens.json").items()} | declared
    for number, token in sorted(declared.items()):
        fields = token if isinstance(token, dict) else {"content": token}
        if backend.id_to_token(number) is not None and number < backend.get_vocab_size(with_added_tokens=False):
            continue
        special = bool(fields.get("special"))
        add = backend.add_special_tokens if special else backend.add_tokens
        add([AddedToken(fields["content"], special=special, normalized=False)])
        if (found := backend.token_to_id(fields["content"])) != number:
            raise DataError(f"{file}: added token {fields['content']!r} gets id {found}, the base declares {number}")


def _named(raw: Raw, config: dict[str, Any]) -> dict[str, str]:
    """Begin, end, unknown and padding token, as declared, else as the sentencepiece model has them."""
    proto = None if raw.file.name == "tokenizer.json" else _proto(raw.file)
    named = {}
    for key in NAMED:
        declared = config.get(key)
        token = declared.get("content") if isinstance(declared, dict) else declared
        if token is None and key not in config and proto is not None:
            number = getattr(proto.trainer_spec, key.replace("_token", "_id"))
            token = proto.pieces[number].piece if number >= 0 else None
        if token is not None:
            if raw.backend.token_to_id(token) is None:
                raise DataError(f"{raw.file}: {key} is declared as {token!r}, which the vocabulary does not hold")
            named[key] = token
    return named


def _begin(backend: Tokenizer, config: dict[str, Any], bos: str | None, from_json: bool) -> list[str]:
    """The tokens that stand before every text."""
    declared = config.get("add_bos_token")
    if declared is None and from_json:
        return list(_template(backend))
    return [bos] if bos is not None and declared is not False else []


def _template(backend: Tokenizer) -> Iterator[str]:
    """What the file itself puts before a text."""
    text = "a"
    plain, whole = backend.encode(text, add_special_tokens=False).ids, backend.encode(text).ids
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            yield from (str(backend.id_to_token(number)) for number in whole[:start])
            return


def _add_before(backend: Tokenizer, before: list[str]) -> None:
    """Make that, and nothing at the end, what the tokenizer adds to a text."""
    ids = _ids(backend, before)
    first, second = " ".join([*before, "$A"]), " ".join([*(f"{token}:1" for token in before), "$B:1"])
    backend.post_processor = processors.TemplateProcessing(
        single=first, pair=f"{first} {second}", special_tokens=list(zip(before, ids, strict=True))
    )


def _ids(backend: Tokenizer, tokens: list[str]) -> list[int]:
    return [number for token in tokens if (number := backend.token_to_id(token)) is not None]
