"""Text generation: greedy decoding, nucleus sampling, and beam search with the rules of Hugging Face's library."""

# K beams, n running beams, V vocabulary, T tokens so far, n rows of a step

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from model.decoding.beams import NEG_INF, SpecialIds, Stepper, select


@dataclass(frozen=True)
class Hypothesis:
    """A text without start token and `</s>`."""

    token_ids: tuple[int, ...]
    score: float  # sum of log-probabilities, divided by length^length_penalty in beam search
    is_complete: bool  # ended by `</s>`


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the most probable one at temperature 0, otherwise nucleus sampling."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


GREEDY = Sampling()
_MIN_TEMPERATURE = 1e-30
"""A lower one makes log-probabilities infinite; the likeliest token is drawn long before."""
_MIN_TOP_P = torch.finfo(torch.float32).tiny
"""A lower one is 0 in float32, and would leave no token to draw."""


class TextStepper(Protocol):
    """The decoder, for one-beam texts: rows at different positions."""

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """Feed the next token of each row: tokens [n] → logits [n, V] in float32."""
        ...


class RunningText:
    """A one-beam text that is being generated."""

    def __init__(self, sampling: Sampling, max_new_tokens: int, special: SpecialIds) -> None:
        self._choose = None if sampling.temperature == 0.0 else _Sampler(sampling).choose
        self._max_new_tokens = max_new_tokens
        self._eos = special.eos
        self._tokens: list[int] = []
        self._score = 0.0
        self._is_complete = False
        self.next_input = special.start

    @property
    def has_ended(self) -> bool:
        return self._is_complete or len(self._tokens) >= self._max_new_tokens

    @property
    def hypothesis(self) -> Hypothesis:
        """The text so far."""
        return Hypothesis(tuple(self._tokens), self._score, self._is_complete)

    def choose(self, log_probs: Tensor, likeliest: int) -> int:
        """The next token, given log_probs [V] and the index of the largest."""
        return likeliest if self._choose is None else self._choose(log_probs)

    def add(self, token: int, log_prob: float) -> int | None:
        """Append the next token; returns it, or None for `</s>`, which is not part of the text."""
        self._score += log_prob
        self.next_input = token
        if token == self._eos:
            self._is_complete = True
            return None
        self._tokens.append(token)
        return token


def step_texts(stepper: TextStepper, texts: Mapping[int, RunningText], device: torch.device) -> dict[int, int | None]:
    """The next token of each text, by row; None for `</s>`. If the stepper fails, no text has changed."""
    rows = sorted(texts)
    inputs = torch.tensor([texts[row].next_input for row in rows], device=device)
    log_probs = stepper.step(rows, inputs).log_softmax(-1)
    likeliest = log_probs.argmax(-1).tolist()
    chosen = [texts[row].choose(log_probs[place], likeliest[place]) for place, row in enumerate(rows)]
    scores = log_probs.gather(1, torch.tensor(chosen, device=device).unsqueeze(1))[:, 0].tolist()
    return {row: texts[row].add(token, score) for row, token, score in zip(rows, chosen, scores, strict=True)}


class _Sampler:
    """Draws the tokens of one text with its own random generator."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def choose(self, log_probs: Tensor) -> int:
        """log_probs: [V]."""
        temperature = max(self._sampling.temperature, _MIN_TEMPERATURE)
        probs = nucleus((log_probs / temperature).softmax(-1), self._sampling.top_p)
        return int(torch.multinomial(probs.cpu(), 1, generator=self._generator))


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Probs [V] with all but the smallest set of top tokens that holds `top_p` of the mass set to 0; not normalised."""
    ordered, index = probs.sort(descending=True)
    mass_before = ordered.cumsum(-1) - ordered
    kept = torch.where(mass_before < max(top_p, _MIN_TOP_P), ordered, 0.0)
    return torch.zeros_like(probs).scatter(0, index, kept)


@dataclass(frozen=True)
class BeamOptions:
    """Options of the text beam search, with Hugging Face's meanings.

    `max_new_tokens` does not count the start token. `early_stopping` ends the search once it has K finished texts.
    """

    num_beams: int
    max_new_tokens: int
    length_penalty: float = 1.0
    early_stopping: bool = False


class TextSearch:
    """A beam search for one text, one step at a time."""

    def __init__(
        self, stepper: Stepper, options: BeamOptions, special: SpecialIds, device: torch.device | None = None
    ) -> None:
        """`stepper` decodes a batch of one row."""
        self._stepper = stepper
        self._options = options
        self._eos = special.eos
        self._num_beams = torch.full((1, 1), options.num_beams, device=device)
        self._scores = torch.zeros(1, 1, device=device)  # [1, n], sums of log-probabilities of the running beams
        self._texts = torch.zeros(1, 1, 0, dtype=torch.int64, device=device)  # [1, n, T]
        self._tokens = torch.full((1, 1), special.start, dtype=torch.int64, device=device)
        self._parents: Tensor | None = None
        self._finished: list[Hypothesis] = []  # best first
        self._is_done = False

    @property
    def has_ended(self) -> bool:
        return self._is_done or self._texts.shape[2] >= self._options.max_new_tokens

    def step(self) -> None:
        """Expand all beams by a token and keep the best."""
        num_beams, length = self._options.num_beams, self._texts.shape[2] + 1
        log_probs = self._stepper.step(self._tokens, self._parents).log_softmax(-1)
        vocabulary = log_probs.shape[-1]
        flat = (self._scores.unsqueeze(-1) + log_probs).flatten(1)
        best, index = flat.topk(min(2 * num_beams, flat.shape[1]), dim=1)
        selection = select(best, index % vocabulary == self._eos, num_beams, self._num_beams)
        for candidate in selection.is_finished[0].nonzero()[:, 0].tolist():
            text = tuple(self._texts[0, int(index[0, candidate]) // vocabulary].tolist())
            self._finish(Hypothesis(text, self._penalised(float(best[0, candidate]), length), is_complete=True))
        self._is_done = self._cannot_improve(float(best[0, 0]), length)
        chosen = index.gather(1, selection.next_index)
        self._parents, self._tokens, self._scores = chosen // vocabulary, chosen % vocabulary, selection.next_scores
        history = self._texts.gather(1, self._parents.unsqueeze(-1).expand(-1, -1, self._texts.shape[2]))
        self._texts = torch.cat([history, self._tokens.unsqueeze(-1)], dim=2)

    def ranked(self) -> list[Hypothesis]:
        """The K best texts, best first, once the search has ended.

        A text of k tokens scores sum / (k + 1)^length_penalty, whether it ends in `</s>` or at the maximum length.
        """
        if not self._is_done:
            for text, total in zip(self._texts[0].tolist(), self._scores[0].tolist(), strict=True):
                if total > NEG_INF:
                    score = self._penalised(total, len(text) + 1)
                    self._finish(Hypothesis(tuple(text), score, is_complete=False))
        return self._finished

    def _finish(self, hypothesis: Hypothesis) -> None:
        self._finished.append(hypothesis)
        self._finished.sort(key=lambda finished: -finished.score)
        del self._finished[self._options.num_beams :]

    def _cannot_improve(self, best_sum: float, length: int) -> bool:
        """Whether K texts have finished and no candidate of this step scores higher than any of them."""
        if len(self._finished) < self._options.num_beams:
            return False
        return self._options.early_stopping or self._finished[-1].score >= self._penalised(best_sum, length)

    def _penalised(self, total: float, length: int) -> float:
        return float(total / length**self._options.length_penalty)
