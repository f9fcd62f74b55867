"""VIP5's 29 prompt templates (arXiv 2305.14302, appendix; the texts as its code has them)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.network.config import Task

Argument = Literal[
    "user_index", "user_name", "history", "candidates", "item_index", "photo", "title", "feature", "stars", "headline"
]
Target = Literal["item", "yes_no", "explanation", "rated_explanation"]

Separator = Literal["comma", "arrow"]
SEPARATORS: dict[Separator, str] = {"comma": ",", "arrow": "->"}


@dataclass(frozen=True)
class Template:
    """A prompt's text, with the names of its arguments in braces."""

    template_id: str
    task: Task
    target: Target
    text: str

    def needs(self, argument: Argument) -> bool:
        return "{" + argument + "}" in self.text


def _template(template_id: str, task: Task, target: Target, text: str) -> tuple[str, Template]:
    return template_id, Template(template_id, task, target, text)


TEMPLATES: dict[str, Template] = dict(
    [
        _template(
            "A-1",
            "sequential",
            "item",
            "Given the following purchase history of user_{user_index} : \n {history} \n predict next possible item to be"
            " purchased by the user ?",
        ),
        _template(
            "A-2",
            "sequential",
            "item",
            "I find the purchase history list of user_{user_index} : \n {history} \n I wonder what is the next item to"
            " recommend to the user . Can you help me decide ?",
        ),
        _template(
            "A-3",
            "sequential",
            "item",
            "Here is the purchase history list of user_{user_index} : \n {history} \n try to recommend next item to the"
            " user",
        ),
        _template(
            "A-4",
            "sequential",
            "item",
            "Given the following purchase history of {user_name} : \n {history} \n predict next possible item for the user",
        ),
        _template(
            "A-5",
            "sequential",
            "item",
            "Based on the purchase history of {user_name} : \n {history} \n Can you decide the next item likely to be"
            " purchased by the user ?",
        ),
        _template(
            "A-6",
            "sequential",
            "item",
            "Here is the purchase history of {user_name} : \n {history} \n What to recommend next for the user ?",
        ),
        _template(
            "A-7",
            "sequential",
            "yes_no",
            "user_{user_index} has the following purchase history : \n {history} \n does the user likely to buy"
            " {item_index} {photo} next ?",
        ),
        _template(
            "A-8",
            "sequential",
            "yes_no",
            "According to {user_name} 's purchase history list : \n {history} \n Predict whether the user will purchase"
            " {item_index} {photo} next ?",
        ),
        _template(
            "A-9",
            "sequential",
            "item",
            "According to the purchase history of {user_name} : \n {history} \n Can you recommend the next possible item"
            " to the user ?",
        ),
        _template(
            "B-1", "direct", "yes_no", "Will user_{user_index} likely to interact with item_{item_index} {photo} ?"
        ),
        _template("B-2", "direct", "yes_no", "Shall we recommend item_{item_index} {photo} to {user_name} ?"),
        _template("B-3", "direct", "yes_no", "For {user_name}, do you think it is good to recommend {title} {photo} ?"),
        _template(
            "B-4",
            "direct",
            "yes_no",
            "I would like to recommend some items for user_{user_index} . Is the following item a good choice ? \n {title}"
            " {photo}",
        ),
        _template(
            "B-5", "direct", "item", "Which item of the following to recommend for {user_name} ? \n {candidates}"
        ),
        _template(
            "B-6",
            "direct",
            "item",
            "Choose the best item from the candidates to recommend for {user_name} ? \n {candidates}",
        ),
        _template(
            "B-7",
            "direct",
            "item",
            "Pick the most suitable item from the following list and recommend to user_{user_index} : \n {candidates}",
        ),
        _template(
            "B-8",
            "direct",
            "item",
            "We want to make recommendation for user_{user_index} .  Select the best item from these candidates :"
            " \n {candidates}",
        ),
        _template(
            "C-1",
            "explanation",
            "explanation",
            "Generate an explanation for user_{user_index} about this product : {title} {photo}",
        ),
        _template(
            "C-2",
            "explanation",
            "explanation",
            "Given the following review headline \n {headline} \n can you help generate an explanation of"
            " user_{user_index} for item_{item_index} {photo} ?",
        ),
        _template(
            "C-3",
            "explanation",
            "explanation",
            "Help user_{user_index} generate a {stars}-star explanation about this product : \n {title} {photo}",
        ),
        _template(
            "C-4",
            "explanation",
            "explanation",
            "Generate an explanation for {user_name} about this product : {title} {photo}",
        ),
        _template(
            "C-5",
            "explanation",
            "explanation",
            "Based on the following review headline : \n {headline} \n Generate {user_name} 's purchase explanation about"
            " {title} {photo}",
        ),
        _template(
            "C-6",
            "explanation",
            "explanation",
            "Help {user_name} generate a {stars}-star explanation for item_{item_index} {photo}",
        ),
        _template(
            "C-7",
            "explanation",
            "rated_explanation",
            "Predict the star rating , then use {feature} as feature word to generate user_{user_index} 's purchase"
            " explanation for item_{item_index} {photo}",
        ),
        _template(
            "C-8",
            "explanation",
            "rated_explanation",
            "What score will {user_name} rate item_{item_index} {photo} ? Then give an explanation for the rating score ."
            " ( 1 being lowest and 5 being highest )",
        ),
        _template(
            "C-9",
            "explanation",
            "explanation",
            "Based on the feature word {feature} , generate an explanation for user_{user_index} about this product :"
            " {title} {photo}",
        ),
        _template(
            "C-10",
            "explanation",
            "explanation",
            "Given the word {feature} , can you help generate an explanation for {user_name} about the product : \n"
            " {title} {photo}",
        ),
        _template(
            "C-11",
            "explanation",
            "explanation",
            "Using the word {feature} , write a {stars}-star explanation for user_{user_index} about item_{item_index}"
            " {photo}",
        ),
        _template(
            "C-12",
            "explanation",
            "explanation",
            "According to the feature word {feature} , generate a {stars}-star explanation for {user_name} about"
            " item_{item_index} {photo}",
        ),
    ]
)
