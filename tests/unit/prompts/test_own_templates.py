"""Templates that come with a domain: what they may be, and what their prompts are."""

from __future__ import annotations

import pytest

from model.prompts.assembly import PromptAssembler, PromptValues
from model.prompts.templates import TEMPLATES, Template, with_own
from model.prompts.tokenizer import TextTokenizer
from tests.tiny import tiny_tokenizer

ITEMS = Template("items", "sequential", "item", "{history}", separator="", most_items=3)


def assembler(*templates: Template, visual_tokens: int = 0) -> PromptAssembler:
    indices = [str(number) for number in range(10, 20)]
    return PromptAssembler(
        TextTokenizer(tiny_tokenizer()),
        indices,
        [None] * len(indices),
        visual_tokens=visual_tokens,
        max_tokens=64,
        templates=templates,
    )


def test_a_template_without_words_and_separator_is_the_identifiers_alone() -> None:
    own = assembler(ITEMS)
    prompt = own.assemble(own.templates["items"], PromptValues(history=(0, 1)))
    expected = [*own.identifiers.row(0).tolist(), *own.identifiers.row(1).tolist(), 1]
    assert prompt.input_ids.tolist() == expected


def test_only_the_most_recent_items_are_read() -> None:
    own = assembler(ITEMS, visual_tokens=2)
    prompt = own.assemble(own.templates["items"], PromptValues(history=(0, 1, 2, 3, 4)))
    assert prompt.image_items == (2, 3, 4)
    assert not prompt.is_truncated


def test_vip5s_templates_stay_beside_a_domains_own() -> None:
    own = assembler(ITEMS)
    assert list(own.templates) == [*TEMPLATES, "items"]
    values = PromptValues(history=(0, 1), user_index="1")
    assert (
        own.assemble(TEMPLATES["A-3"], values).input_ids.tolist()
        == assembler().assemble(TEMPLATES["A-3"], values).input_ids.tolist()
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (Template("a name", "sequential", "item", "{history}"), r"'a name' cannot name a template"),
        (Template("A-10", "sequential", "item", "{history}"), r"A-10 is a name as VIP5's templates have"),
        (Template("x", "sequential", "item", "{hystory}"), r"x: \{hystory\} is no argument; choose from user_index"),
        (Template("x", "sequential", "item", "what next ?"), r"x: the text 'what next \?' lacks \{history\}"),
        (Template("x", "direct", "item", "{history}"), r"lacks \{candidates\}, which direct templates need"),
        (Template("x", "direct", "explanation", "{title}"), r"no direct template has the target explanation"),
        (Template("x", "sequential", "item", "{history}", most_items=0), r"most_items is 0; it must be at least 1"),
    ],
)
def test_a_faulty_template_is_refused_by_name_and_rule(template: Template, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_own([template])


def test_two_templates_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="the name items is taken by another template"):
        with_own([ITEMS, ITEMS])
