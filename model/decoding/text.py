"""Generation of free text: greedy, drawn, and beam search with the rules of Hugging Face's library."""

# B rows, K beams, V vocabulary, C candidates, T tokens so far

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.decoding.beams import DEAD, SpecialIds, Stepper, select


@dataclass(frozen=True)
class Hypothesis:
    """A text, without start token and `</s>`."""

    token_ids: tuple[int, ...]
    score: float  # sum of log-probabilities, divided by length^length_penalty in beam search
    is_complete: bool  # ended by `</s>`


@dataclass(frozen=True)
class Sampling:
    """How a row's next token is chosen: the likeliest at temperature 0, else drawn."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


GREEDY = Sampling()


def decode_one_beam(
    stepper: Stepper,
    sampling: Sequence[Sampling],
    max_new_tokens: Sequence[int],
    special: SpecialIds,
    *,
    device: torch.device | None = None,
    on_token: Callable[[int, int], bool] | None = None,
) -> list[Hypothesis]:
    """One text for each row; `on_token(row, token)` sees every token as it comes and returns False to end that row."""
    num_rows = len(sampling)
    choosers = [_Chooser(row) for row in sampling]
    texts: list[list[int]] = [[] for _ in range(num_rows)]
    scores = [0.0] * num_rows
    is_complete = [False] * num_rows
    running = set(range(num_rows))
    tokens = torch.full((num_rows, 1), special.start, dtype=torch.int64, device=device)
    parents: Tensor | None = None
    while running:
        log_probs = stepper.step(tokens, parents)[:, 0].log_softmax(-1)
        parents = torch.zeros_like(tokens)
        for row in sorted(running):
            token = choosers[row].choose(log_probs[row])
            scores[row] += float(log_probs[row, token])
            tokens[row, 0] = token
            if token == special.eos:
                is_complete[row] = True
                running.discard(row)
                continue
            texts[row].append(token)
            goes_on = on_token is None or on_token(row, token)
            if not goes_on or len(texts[row]) >= max_new_tokens[row]:
                running.discard(row)
    return [Hypothesis(tuple(text), score, done) for text, score, done in zip(texts, scores, is_complete, strict=True)]


class _Chooser:
    """Chooses one row's tokens, with the row's own random numbers."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def choose(self, log_probs: Tensor) -> int:
        """log_probs: [V]."""
        if self._sampling.temperature == 0.0:
            return int(log_probs.argmax())
        probs = nucleus((log_probs / self._sampling.temperature).softmax(-1), self._sampling.top_p)
        return int(torch.multinomial(probs.cpu(), 1, generator=self._generator))


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Of probs [V], the smallest set of likeliest tokens that holds `top_p` of the mass, not normalised again."""
    ordered, index = probs.sort(descending=True)
    mass_before = ordered.cumsum(-1) - ordered
    kept = torch.where(mass_before < top_p, ordered, 0.0)
    return torch.zeros_like(probs).scatter(0, index, kept)


@dataclass(frozen=True)
class BeamOptions:
    """Options of the text beam search, with the library's meanings.

    `max_new_tokens` does not count the start token. `early_stopping` ends a row as soon as it has K finished texts.
    """

    num_beams: int
    max_new_tokens: int
    length_penalty: float = 1.0
    early_stopping: bool = False


def search_texts(
    stepper: Stepper, num_rows: int, options: BeamOptions, special: SpecialIds, device: torch.device | None = None
) -> list[list[Hypothesis]]:
    """The K best texts of each row, best first.

    A text of k tokens and `</s>` scores sum / (k + 1)^length_penalty; one cut at the longest length has no `</s>` and
    counts as long as it is.
    """
    beams_of_rows = torch.full((num_rows, 1), options.num_beams, device=device)
    rows = [_Row(options) for _ in range(num_rows)]
    scores = torch.zeros(num_rows, 1, device=device)
    texts = torch.zeros(num_rows, 1, 0, dtype=torch.int64, device=device)  # [B, n, T]
    tokens = torch.full((num_rows, 1), special.start, dtype=torch.int64, device=device)
    parents: Tensor | None = None
    for step in range(options.max_new_tokens):
        log_probs = stepper.step(tokens, parents).log_softmax(-1)
        vocabulary = log_probs.shape[-1]
        flat = (scores.unsqueeze(-1) + log_probs).flatten(1)
        best, index = flat.topk(min(2 * options.num_beams, flat.shape[1]), dim=1)
        is_eos = index % vocabulary == special.eos
        selection = select(best, is_eos, options.num_beams, beams_of_rows)
        for row, hypotheses in enumerate(rows):
            hypotheses.add_finished(
                texts[row], best[row], index[row] // vocabulary, selection.is_finished[row], step + 1
            )
            hypotheses.close_step(float(best[row, 0]), step + 1)
        chosen = index.gather(1, selection.next_index)
        parents, tokens, scores = chosen // vocabulary, chosen % vocabulary, selection.next_scores
        history = texts.gather(1, parents.unsqueeze(-1).expand(-1, -1, texts.shape[2]))
        texts = torch.cat([history, tokens.unsqueeze(-1)], dim=2)
        if all(row.is_done for row in rows):
            break
    return [row.ranked(texts[number], scores[number]) for number, row in enumerate(rows)]


class _Row:
    """The finished texts of one row."""

    def __init__(self, options: BeamOptions) -> None:
        self._options = options
        self._finished: list[Hypothesis] = []
        self.is_done = False

    def add_finished(self, texts: Tensor, sums: Tensor, parents: Tensor, is_finished: Tensor, length: int) -> None:
        """Texts are [n, T], all else [C], of this step's candidates; length counts the start token."""
        if self.is_done:
            return
        for candidate in is_finished.nonzero()[:, 0].tolist():
            text = tuple(texts[int(parents[candidate])].tolist())
            self._add(Hypothesis(text, self._penalised(float(sums[candidate]), length), is_complete=True))

    def close_step(self, best_sum: float, length: int) -> None:
        """Decide whether the row has ended: `best_sum` is the best candidate of this step, finished or not."""
        if self.is_done or len(self._finished) < self._options.num_beams:
            return
        worst = self._finished[-1].score
        self.is_done = self._options.early_stopping or worst >= self._penalised(best_sum, length)

    def ranked(self, texts: Tensor, sums: Tensor) -> list[Hypothesis]:
        """The best texts, beams that were cut at the longest length included: texts [K, T], sums [K]."""
        if not self.is_done:
            for text, total in zip(texts.tolist(), sums.tolist(), strict=True):
                if total > DEAD:
                    score = self._penalised(total, len(text) + 1)
                    self._add(Hypothesis(tuple(text), score, is_complete=False))
        return self._finished

    def _add(self, hypothesis: Hypothesis) -> None:
        self._finished.append(hypothesis)
        self._finished.sort(key=lambda finished: -finished.score)
        del self._finished[self._options.num_beams :]

    def _penalised(self, total: float, length: int) -> float:
        return float(total / length**self._options.length_penalty)
