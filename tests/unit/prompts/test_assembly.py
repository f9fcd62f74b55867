"""Assembled prompts against tokenising the whole text by the classic rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.prompts.assembly import PromptAssembler, PromptValues
from model.prompts.prompt import Prompt
from model.prompts.templates import TEMPLATES, Separator, Template
from model.prompts.tokenizer import TextTokenizer
from tests.tiny import tiny_tokenizer
from tests.unit.prompts.oracles import Catalog, Oracle, images_of, text_of

NUM_ITEMS = 12
_TIED = re.compile(r"(\d)\1\1")  # runs such as 444: the two libraries may break ties between pieces differently
_SPECIALS = ("<extra_id_0>", "</s>", "<pad>", "<unk>", "<extra_id_1>")


@dataclass(frozen=True)
class Drawn:
    """A prompt to assemble."""

    template: Template
    separator: Separator
    values: PromptValues
    catalog: Catalog
    max_tokens: int

    def assemble(self, tokenizer: TextTokenizer) -> Prompt:
        assembler = PromptAssembler(
            tokenizer,
            self.catalog.indices,
            self.catalog.titles,
            visual_tokens=self.catalog.visual_tokens,
            max_tokens=self.max_tokens,
        )
        return assembler.assemble(self.template, self.values, self.separator)


def texts(alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Words with any number of blanks around them, and now and then the name of a special token."""
    word = st.text(alphabet, min_size=1, max_size=9) | st.sampled_from(_SPECIALS)
    blank = st.sampled_from([" ", " ", "  ", "\n", ""])
    return st.lists(st.tuples(word, blank), max_size=4).map(lambda pairs: "".join(w + b for w, b in pairs))


@st.composite
def prompts(draw: st.DrawFn, alphabet: st.SearchStrategy[str]) -> Drawn:
    text = texts(alphabet)
    rows = st.lists(st.integers(0, NUM_ITEMS - 1), max_size=10).map(tuple)
    number = st.integers(1, 20_000).map(str).filter(lambda digits: not _TIED.search(digits))
    return Drawn(
        template=draw(st.sampled_from(list(TEMPLATES.values()))),
        separator=draw(st.sampled_from(("comma", "arrow"))),
        values=PromptValues(
            user_index=draw(number | text),
            user_name=draw(text),
            history=draw(rows),
            candidates=draw(rows),
            item=draw(st.integers(0, NUM_ITEMS - 1)),
            feature=draw(text),
            stars=draw(st.sampled_from(["1", "5", ""])),
            headline=draw(text),
        ),
        catalog=Catalog(
            indices=draw(st.lists(number, min_size=NUM_ITEMS, max_size=NUM_ITEMS, unique=True)),
            titles=draw(st.lists(st.none() | text, min_size=NUM_ITEMS, max_size=NUM_ITEMS)),
            visual_tokens=draw(st.integers(0, 3)),
        ),
        max_tokens=draw(st.sampled_from([1, 12, 40, 1024])),
    )


ASCII = st.characters(min_codepoint=33, max_codepoint=126)
WORLD = st.sampled_from("etaoinshrdluETAOINSC'-.,!?&_0123456789éüñßçøœΩжд你好日本ﬁ①ＡＢ½™…—“”🙂")


def check(drawn: Drawn, tokenizer: TextTokenizer, oracle: Oracle) -> None:
    text = text_of(drawn.template, drawn.values, drawn.catalog, drawn.separator)
    expected = oracle.input_ids(text)
    prompt = drawn.assemble(tokenizer)
    kept = expected[: drawn.max_tokens - 1]
    assert prompt.input_ids.tolist() == [*kept, oracle.eos_id], text
    assert prompt.whole_word_ids.tolist() == oracle.whole_word_ids(kept)
    assert prompt.category_ids.tolist() == [*(int(token == oracle.image_id) for token in kept), 0]
    assert prompt.num_tokens_untruncated == len(expected) + 1
    assert prompt.num_tokens == min(len(expected) + 1, drawn.max_tokens)
    assert prompt.is_truncated == (len(expected) + 1 > drawn.max_tokens)
    images = images_of(drawn.template, drawn.values) if drawn.catalog.visual_tokens else ()
    assert prompt.image_items == images
    assert expected.count(oracle.image_id) == len(images) * drawn.catalog.visual_tokens


@pytest.fixture(scope="module")
def tiny() -> tuple[TextTokenizer, Oracle]:
    whole, tokenizer = tiny_tokenizer(), TextTokenizer(tiny_tokenizer())

    def encode_piece(piece: str) -> list[int]:
        return list(whole.encode(piece, add_special_tokens=False).ids)

    return tokenizer, Oracle(encode_piece, tokenizer.token, tokenizer.image_id)


@pytest.fixture(scope="module")
def real(shared: Path) -> tuple[TextTokenizer, Oracle]:
    from sentencepiece import SentencePieceProcessor

    folder = shared / "data/t5-tokenizer"
    classic = SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    encode_piece: Callable[[str], list[int]] = classic.encode
    return TextTokenizer.from_file(folder / "tokenizer.json"), Oracle(encode_piece, classic.id_to_piece, 32099)


@given(drawn=prompts(ASCII))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_prompts_equal_the_tokenised_whole_text(drawn: Drawn, tiny: tuple[TextTokenizer, Oracle]) -> None:
    check(drawn, *tiny)


@given(drawn=prompts(WORLD))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_prompts_equal_what_sentencepiece_makes_of_the_whole_text(
    drawn: Drawn, real: tuple[TextTokenizer, Oracle]
) -> None:
    check(drawn, *real)


@pytest.mark.parametrize("template_id", list(TEMPLATES))
def test_every_template_equals_what_sentencepiece_makes_of_it(
    template_id: str, real: tuple[TextTokenizer, Oracle]
) -> None:
    values = PromptValues(
        user_index="1042",
        user_name="Chris D. O'Neil",
        history=(3, 0, 2),
        candidates=(1, 3),
        item=1,
        feature="price",
        stars="4",
        headline="Great, my son loves it!",
    )
    catalog = Catalog(("17", "204", "9651", "11924"), ("Lego: City", None, "", "Puzzle (500 pieces)"), 2)
    for separator in ("comma", "arrow"):
        check(Drawn(TEMPLATES[template_id], separator, values, catalog, 1024), *real)


def test_the_templates_are_those_of_the_reference(shared: Path) -> None:
    table = (shared / "reference/vip5.md").read_text()
    rows = re.findall(r"^\| ([ABC]-\d+) \| `(.*)`.* \| (.*) \|$", table, re.MULTILINE)
    names = {
        "user_index": "user index",
        "user_name": "user description",
        "history": "history",
        "candidates": "candidates",
        "item_index": "item index",
        "photo": "photo",
        "title": "title",
        "feature": "feature",
        "stars": "stars",
        "headline": "headline",
    }
    assert [template_id for template_id, _, _ in rows] == list(TEMPLATES)
    for template_id, text, arguments in rows:
        ours = TEMPLATES[template_id].text
        assert re.sub(r"\{\w+\}", "{}", ours).replace("\n", r"\n") == text
        assert [names[name] for name in re.findall(r"\{(\w+)\}", ours)] == arguments.split(", ")


def test_a_template_needs_what_stands_in_its_braces() -> None:
    assert TEMPLATES["C-12"].needs("stars")
    assert not TEMPLATES["C-12"].needs("headline")
    assert TEMPLATES["A-1"].needs("user_index")
    assert not TEMPLATES["A-1"].needs("user_name")


@pytest.mark.parametrize("forged", ["<extra_id_0>", "a<extra_id_0>b", "<extra_id_0><extra_id_0>", "</s>", "<pad>"])
def test_text_of_users_and_titles_cannot_forge_image_slots_or_an_end(
    forged: str, tiny: tuple[TextTokenizer, Oracle]
) -> None:
    tokenizer, _ = tiny
    values = PromptValues(user_index=forged, user_name=forged, item=0, feature=forged, stars="1", headline=forged)
    for template in TEMPLATES.values():
        prompt = Drawn(template, "comma", values, Catalog(("5",), (forged,), 2), 1024).assemble(tokenizer)
        assert prompt.category_ids.sum() == 2 * len(prompt.image_items) == 2 * template.text.count("{photo}")
        assert prompt.input_ids.tolist().index(tokenizer.eos_id) == prompt.num_tokens - 1
        assert tokenizer.pad_id not in prompt.input_ids


@pytest.mark.parametrize(
    "disguised",
    [
        "<extra_id_<pad>0>",
        "<extra<unk>_id_0>",
        "＜extra_id_0＞",
        "<extra\x01_id_0>",
        "x＜/s＞",
        "＜pad＞",
        "<extra_id_0\x7f>",
    ],
)
def test_special_tokens_do_not_arise_when_text_is_cleaned_or_normalised(
    disguised: str, tiny: tuple[TextTokenizer, Oracle], real: tuple[TextTokenizer, Oracle]
) -> None:
    for tokenizer, _ in (tiny, real):
        reserved = {tokenizer.image_id, tokenizer.eos_id, tokenizer.pad_id}
        assert reserved.isdisjoint(tokenizer.words(disguised))


def test_unknown_characters_are_still_unknown_words(real: tuple[TextTokenizer, Oracle]) -> None:
    tokenizer, _ = real
    assert tokenizer.unk_id in tokenizer.words("日本")


def test_an_image_may_be_cut_in_the_middle_but_its_features_never_are(tiny: tuple[TextTokenizer, Oracle]) -> None:
    tokenizer, _ = tiny
    values = PromptValues(history=(0, 1, 2), user_index="4")
    catalog = Catalog(("5", "6", "7"), (None, None, None), 3)
    whole = Drawn(TEMPLATES["A-3"], "comma", values, catalog, 1024).assemble(tokenizer)
    first_photo = int(whole.category_ids.argmax())
    cut = Drawn(TEMPLATES["A-3"], "comma", values, catalog, first_photo + 3).assemble(tokenizer)
    assert cut.category_ids.tolist()[-3:] == [1, 1, 0]
    assert cut.image_items == (0, 1, 2)
    assert cut.is_truncated
    assert cut.num_tokens_untruncated == whole.num_tokens


def test_identifiers_keep_a_models_own_tokens(tiny: tuple[TextTokenizer, Oracle]) -> None:
    tokenizer, _ = tiny
    values = PromptValues(history=(0,), user_index="4")
    prompt = Drawn(TEMPLATES["A-3"], "comma", values, Catalog(("<extra_id_1>",), (None,), 1), 1024).assemble(tokenizer)
    assert prompt.input_ids.tolist().count(tokenizer.image_id - 1) == 1
