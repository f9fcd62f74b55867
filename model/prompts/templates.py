"""VIP5's 29 prompt templates (arXiv 2305.14302, appendix; the texts as its code has them), and templates of domains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from model.network.config import Task

Argument = Literal[
    "user_index", "user_name", "history", "candidates", "item_index", "photo", "title", "feature", "stars", "headline"
]
Target = Literal["item", "yes_no", "explanation", "rated_explanation"]
"""What the model answers with; a rated explanation begins with a star rating."""

Separator = Literal["comma", "arrow"]
SEPARATORS: dict[Separator, str] = {"comma": ",", "arrow": "->"}

DEFAULT_SEQUENTIAL = "A-3"
DEFAULT_DIRECT = "B-5"


@dataclass(frozen=True)
class Template:
    """A prompt's text, with the names of its arguments in braces.

    `separator` is the text between items, which requests choose if it is None. `most_items` is how many items of a history,
    the most recent ones, are read; None for all.
    """

    template_id: str
    task: Task
    target: Target
    text: str
    separator: str | None = None
    most_items: int | None = None

    def needs(self, argument: Argument) -> bool:
        return "{" + argument + "}" in self.text

    @property
    def predicts_rating(self) -> bool:
        """Whether the answer begins with a star rating."""
        return self.target == "rated_explanation"


_TEXTS: dict[tuple[Task, Target], dict[str, str]] = {
    ("sequential", "item"): {
        "A-1": "Given the following purchase history of user_{user_index} : \n {history} \n predict next possible item to be purchased by the user ?",
        "A-2": "I find the purchase history list of user_{user_index} : \n {history} \n I wonder what is the next item to recommend to the user . Can you help me decide ?",
        "A-3": "Here is the purchase history list of user_{user_index} : \n {history} \n try to recommend next item to the user",
        "A-4": "Given the following purchase history of {user_name} : \n {history} \n predict next possible item for the user",
        "A-5": "Based on the purchase history of {user_name} : \n {history} \n Can you decide the next item likely to be purchased by the user ?",
        "A-6": "Here is the purchase history of {user_name} : \n {history} \n What to recommend next for the user ?",
        "A-9": "According to the purchase history of {user_name} : \n {history} \n Can you recommend the next possible item to the user ?",
    },
    ("sequential", "yes_no"): {
        "A-7": "user_{user_index} has the following purchase history : \n {history} \n does the user likely to buy {item_index} {photo} next ?",
        "A-8": "According to {user_name} 's purchase history list : \n {history} \n Predict whether the user will purchase {item_index} {photo} next ?",
    },
    ("direct", "yes_no"): {
        "B-1": "Will user_{user_index} likely to interact with item_{item_index} {photo} ?",
        "B-2": "Shall we recommend item_{item_index} {photo} to {user_name} ?",
        "B-3": "For {user_name}, do you think it is good to recommend {title} {photo} ?",
        "B-4": "I would like to recommend some items for user_{user_index} . Is the following item a good choice ? \n {title} {photo}",
    },
    ("direct", "item"): {
        "B-5": "Which item of the following to recommend for {user_name} ? \n {candidates}",
        "B-6": "Choose the best item from the candidates to recommend for {user_name} ? \n {candidates}",
        "B-7": "Pick the most suitable item from the following list and recommend to user_{user_index} : \n {candidates}",
        "B-8": "We want to make recommendation for user_{user_index} .  Select the best item from these candidates : \n {candidates}",
    },
    ("explanation", "explanation"): {
        "C-1": "Generate an explanation for user_{user_index} about this product : {title} {photo}",
        "C-2": "Given the following review headline \n {headline} \n can you help generate an explanation of user_{user_index} for item_{item_index} {photo} ?",
        "C-3": "Help user_{user_index} generate a {stars}-star explanation about this product : \n {title} {photo}",
        "C-4": "Generate an explanation for {user_name} about this product : {title} {photo}",
        "C-5": "Based on the following review headline : \n {headline} \n Generate {user_name} 's purchase explanation about {title} {photo}",
        "C-6": "Help {user_name} generate a {stars}-star explanation for item_{item_index} {photo}",
        "C-9": "Based on the feature word {feature} , generate an explanation for user_{user_index} about this product : {title} {photo}",
        "C-10": "Given the word {feature} , can you help generate an explanation for {user_name} about the product : \n {title} {photo}",
        "C-11": "Using the word {feature} , write a {stars}-star explanation for user_{user_index} about item_{item_index} {photo}",
        "C-12": "According to the feature word {feature} , generate a {stars}-star explanation for {user_name} about item_{item_index} {photo}",
    },
    ("explanation", "rated_explanation"): {
        "C-7": "Predict the star rating , then use {feature} as feature word to generate user_{user_index} 's purchase explanation for item_{item_index} {photo}",
        "C-8": "What score will {user_name} rate item_{item_index} {photo} ? Then give an explanation for the rating score . ( 1 being lowest and 5 being highest )",
    },
}


_NEEDED: dict[tuple[Task, Target], Argument] = {
    ("sequential", "item"): "history",
    ("sequential", "yes_no"): "history",
    ("direct", "item"): "candidates",
}


def _place(template: Template) -> tuple[str, int]:
    """The order of the paper: A-9 before A-10."""
    letter, number = template.template_id.split("-")
    return letter, int(number)


_ALL = [
    Template(template_id, task, target, text)
    for (task, target), texts in _TEXTS.items()
    for template_id, text in texts.items()
]

TEMPLATES: dict[str, Template] = {template.template_id: template for template in sorted(_ALL, key=_place)}


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,7}")
VIP5_NAME = r"^[ABC]-\d+$"
_IN_BRACES = re.compile(r"\{(\w*)\}")


def templates_of(task: Task, templates: Mapping[str, Template] = TEMPLATES) -> list[Template]:
    return [template for template in templates.values() if template.task == task]


def is_vip5_name(name: str) -> bool:
    """Whether a name is one that only VIP5's templates may have, such as A-3."""
    return re.match(VIP5_NAME, name) is not None


def with_own(own: Iterable[Template]) -> dict[str, Template]:
    """VIP5's templates and a domain's own, by name. Raises ValueError, naming the template and the rule, for a faulty one."""
    known = dict(TEMPLATES)
    for template in own:
        _check(template, known)
        known[template.template_id] = template
    return known


def _check(template: Template, known: Mapping[str, Template]) -> None:
    name, text = template.template_id, template.text
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a template; use up to 8 letters, digits and hyphens")
    if is_vip5_name(name):
        raise ValueError(f"{name} is a name as VIP5's templates have; choose another name")
    if name in known:
        raise ValueError(f"the name {name} is taken by another template; choose another name")
    if (template.task, template.target) not in _TEXTS:
        kinds = ", ".join(f"{task} with {target}" for task, target in _TEXTS)
        raise ValueError(f"{name}: no {template.task} template has the target {template.target}; choose from {kinds}")
    arguments = _IN_BRACES.findall(text)
    unknown = next((each for each in arguments if each not in get_args(Argument)), None)
    if unknown is not None:
        raise ValueError(f"{name}: {{{unknown}}} is no argument; choose from {', '.join(get_args(Argument))}")
    needed = _NEEDED.get((template.task, template.target))
    if needed is not None and needed not in arguments:
        raise ValueError(f"{name}: the text {text!r} lacks {{{needed}}}, which {template.task} templates need")
    if template.most_items is not None and template.most_items < 1:
        raise ValueError(f"{name}: most_items is {template.most_items}; it must be at least 1")
