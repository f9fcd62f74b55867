"""Reviews of the demonstration's customers. Independent of pictures and models.

Each sentence names one trait of the item, in a tone that fits the rating. `feature` is the trait's name, as in the data
of VIP5's explanations.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from demo.designs import Design

Topic = Literal["colour", "pattern", "style"]
Mood = Literal["glad", "content", "sorry"]
TOPICS: tuple[Topic, ...] = ("colour", "pattern", "style")

_SENTENCES: dict[Topic, dict[Mood, tuple[str, ...]]] = {
    "colour": {
        "glad": (
            "i love the {colour} colour of this {kind}",
            "the {colour} is even nicer than in the picture",
            "such a lovely {colour} , it goes with everything",
        ),
        "content": (
            "the {colour} is nice , though a bit pale",
            "a decent {kind} , and {colour} is fine with me",
        ),
        "sorry": (
            "the {colour} is too loud for me",
            "i thought that {colour} would suit me , it does not",
        ),
    },
    "pattern": {
        "glad": (
            "the {pattern} pattern makes this {kind} special",
            "everybody asks me about the {pattern} pattern",
            "i was after something {pattern} and this is perfect",
        ),
        "content": (
            "the {pattern} pattern is fine , nothing more",
            "a good {kind} if you like the {pattern} pattern",
        ),
        "sorry": (
            "the {pattern} pattern is not for me",
            "i should have known that {pattern} is not my thing",
        ),
    },
    "style": {
        "glad": (
            "i adore the {style} style of this {kind}",
            "so {style} , it is just what i was looking for",
            "the {style} look is a dream",
        ),
        "content": (
            "the {style} style is all right",
            "an honest {kind} in a {style} style",
        ),
        "sorry": (
            "the {style} style does not convince me",
            "far too {style} for our home",
        ),
    },
}
_HEADLINES: dict[Mood, tuple[str, ...]] = {
    "glad": ("love it", "five stars", "just right", "what a find"),
    "content": ("good enough", "quite nice", "as expected"),
    "sorry": ("not for me", "disappointed", "would not buy again"),
}
_GLAD, _CONTENT = 5, 3  # fewest stars


@dataclass(frozen=True)
class Opinion:
    """A review's text and its topic."""

    headline: str
    feature: Topic
    explanation: str


def give_opinion(design: Design, stars: int, chance: random.Random) -> Opinion:
    """A sentence about the item's colour, pattern or style."""
    mood = mood_of(stars)
    topic = chance.choice(TOPICS)
    sentence = chance.choice(_SENTENCES[topic][mood])
    look = design.look
    text = sentence.format(colour=look.colour, pattern=look.pattern, style=look.style, kind=design.kind.name)
    return Opinion(chance.choice(_HEADLINES[mood]), topic, text)


def mood_of(stars: int) -> Mood:
    """The tone of reviews with this rating."""
    if stars >= _GLAD:
        return "glad"
    return "content" if stars >= _CONTENT else "sorry"


def mood_in(text: str) -> Mood | None:
    """The tone of a review's text; None for a text that nobody would write.

    A comma may follow its word, as in texts that a model wrote, or stand alone, as in the data.
    """
    apart = re.sub(r"\s*,", " ,", text)
    return next((mood for mood, pattern in _PATTERNS.items() if pattern.fullmatch(apart)), None)


def _pattern(mood: Mood) -> re.Pattern[str]:
    """Matches all sentences of a tone, with any word for each trait."""
    sentences = [sentence for topic in TOPICS for sentence in _SENTENCES[topic][mood]]
    return re.compile("|".join(re.sub(r"\\{\w+\\}", r"\\w+", re.escape(sentence)) for sentence in sentences))


_PATTERNS: dict[Mood, re.Pattern[str]] = {mood: _pattern(mood) for mood in _HEADLINES}
