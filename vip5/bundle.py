"""Open bundles and their domains, without HTTP. Requests take the path of `vip5 predict`."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, Unpack, overload

from pydantic import BaseModel, ValidationError

from model.bundle.catalog import Catalog
from model.bundle.columns import AttributeValue
from model.engine.names import EngineName
from model.errors import InputError, UnknownDomainError, UnknownItemError
from model.evaluation.options import EvaluationOptions
from model.evaluation.report import Report
from model.progress import Progress, no_progress
from service.answering.answers import Recommendation
from service.answering.parts import Service
from service.observability.trace import RequestTrace
from service.schemas.explanation import ExplanationAnswer, ExplanationRequest
from service.schemas.ranking import SequentialRequest
from service.settings.served_bundle import load_with_bundle
from vip5.options import ExplanationOptions, RankingOptions
from vip5.service_thread import ClosedBundleError, ServiceThread

__all__ = ["Bundle", "ClosedBundleError", "Domain", "open_bundle"]

T = TypeVar("T")
R = TypeVar("R", bound=BaseModel)


def open_bundle(
    bundle: str | Path, *, device: str = "cpu", engine: EngineName = "auto", num_threads: int | None = None
) -> Bundle:
    """Verify a bundle, a folder or the URL of a store, and load it.

    Other settings are those of `VIP5_…` in the environment, as for `vip5 predict`.
    Raises BundleError kinds for an invalid bundle, EngineError for a device or engine that is not available, and
    SettingsError.
    """
    options = {"bundle": bundle, "device": device, "engine": engine, "num_threads": num_threads}
    return Bundle(ServiceThread(load_with_bundle(options)))


class Bundle(Mapping[str, "Domain"]):
    """An open bundle: its domains by name. A context manager, which closes it."""

    def __init__(self, thread: ServiceThread) -> None:
        self._thread = thread
        self._domains = {name: Domain(name, thread) for name in sorted(thread.runtime.domains)}

    @property
    def hash(self) -> str:
        return self._thread.runtime.bundle_hash

    def close(self) -> None:
        """Free the engine; later calls raise ClosedBundleError. Idempotent."""
        self._thread.close()

    def __getitem__(self, name: str) -> Domain:
        """Raises UnknownDomainError, which names the domains that there are."""
        if name not in self._domains:
            raise UnknownDomainError(
                f"the bundle has no domain {name!r}; it has {', '.join(self._domains)}", field="domain"
            )
        return self._domains[name]

    @overload
    def get(self, name: str, /) -> Domain | None: ...
    @overload
    def get(self, name: str, /, default: Domain | T) -> Domain | T: ...
    def get(self, name: str, /, default: object = None) -> object:
        return self._domains.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._domains

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<bundle {self.hash[:12]}: {', '.join(self)}>"


class Domain:
    """A domain of an open bundle."""

    def __init__(self, name: str, thread: ServiceThread) -> None:
        self.name = name
        self._thread = thread
        self._numbers = itertools.count(1)
        self._row_of = {item_id: row for row, item_id in enumerate(self.catalog.item_ids)}

    @property
    def catalog(self) -> Catalog:
        """All items with their columns."""
        return self._thread.runtime.domains[self.name].catalog

    def item(self, item_id: str) -> dict[str, AttributeValue]:
        """All columns of an item, its identifier among them. Raises UnknownItemError."""
        if item_id not in self._row_of:
            raise UnknownItemError(
                f"the domain {self.name} has no item {item_id!r}; domain.catalog lists all", field=""
            )
        row, catalog = self._row_of[item_id], self.catalog
        facts = {"title": catalog.titles[row], "image": catalog.images[row], **catalog.attributes(row)}
        return {"item_id": item_id, "index": catalog.indices[row], **facts}

    def recommend(self, history: Sequence[str], k: int = 10, **options: Unpack[RankingOptions]) -> Recommendation:
        """The k items that come next after a history, oldest first.

        `options` are the fields of `POST /recommend/sequential`. Raises InputError kinds, which name the field.
        """
        request = _checked(SequentialRequest, {"history": _as_list(history), "k": k, **self._named(options)})
        return self._ask(lambda service, trace: service.recommender.recommend(request, trace))

    def explain(self, item_id: str, **options: Unpack[ExplanationOptions]) -> ExplanationAnswer:
        """A sentence in which a user would recommend the item, or not.

        `options` are the fields of `POST /explain`. Raises InputError kinds, which name the field.
        """
        request = _checked(ExplanationRequest, {"item_id": item_id, **self._named(options)})
        return self._ask(lambda service, trace: service.explainer.explain(request, trace))

    def evaluate(
        self,
        data: str | Path,
        options: EvaluationOptions | None = None,
        *,
        journal: str | Path | None = None,
        progress: Progress = no_progress,
    ) -> Report:
        """Ask about the held-out interactions of a dataset, and measure the answers, as `vip5 evaluate` does.

        With a `journal`, an interrupted evaluation continues. Needs the extra `train`. Raises DatasetError for data
        that does not fit the domain or the options, and InputError.
        """
        from model.datasets.dataset import Dataset  # noqa: PLC0415  # serving does not need these
        from model.evaluation.evaluation import evaluate  # noqa: PLC0415

        dataset = Dataset.read(Path(data))
        runtime, kept = self._thread.runtime, None if journal is None else Path(journal)
        return self._thread.exclusively(
            lambda: evaluate(runtime, self.name, dataset, options, journal=kept, progress=progress)
        )

    def __repr__(self) -> str:
        return f"<domain {self.name}: {len(self.catalog):,} items>"

    def _named(self, options: Mapping[str, object]) -> dict[str, object]:
        """The options with this domain's name. Raises InputError if they name a domain, which would be another one."""
        if "domain" in options:
            raise InputError(
                f"domain: {options['domain']!r} is asked of the domain {self.name!r}; leave it out, or take the other "
                "domain from the bundle",
                field="domain",
            )
        return {"domain": self.name, **options}

    def _ask(self, ask: Callable[[Service, RequestTrace], Awaitable[T]]) -> T:
        trace = RequestTrace(request_id=f"{self.name}-{next(self._numbers)}")

        async def asked(service: Service) -> T:
            try:
                return await ask(service, trace)
            finally:
                trace.end()

        return self._thread.call(asked)


def _as_list(items: object) -> object:
    """Arrays, generators and the like as lists. A text is none, or it would be one of its letters."""
    return list(items) if isinstance(items, Iterable) and not isinstance(items, str) else items


def _checked(kind: type[R], body: Mapping[str, object]) -> R:
    """The request. Raises InputError, which names every field that breaks a rule."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        faults = error.errors()
        lines = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}, not {fault['input']!r:.60}" for fault in faults]
        raise InputError("; ".join(lines), field=str(faults[0]["loc"][0])) from error
