"""Names of columns and of fields: which are read, which are not, and what was meant by those that are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from model.bundle.likely_names import hint_of, likely_name, normal_form
from model.errors import DatasetError

_NUM_NAMED = 8


@dataclass
class FieldNames:
    """Gives fields the names that a reader knows, and remembers those that it does not.

    `ignored` are names of the format that no reader needs, which are not worth a word. Each of `required` has names of
    which a record needs one.
    """

    known: Sequence[str]
    ignored: Sequence[str] = ()
    required: Sequence[Sequence[str]] = ()
    unknown: Counter[str] = field(default_factory=Counter)
    meant: dict[str, str] = field(default_factory=dict)  # likely names of unknown fields, in records that lack them

    def __post_init__(self) -> None:
        self._by_form = {normal_form(name): name for name in self.known}
        self._skipped = frozenset(map(normal_form, self.ignored))
        self._known = frozenset(self.known)

    def find(self, name: str) -> str | None:
        """The known name that differs from this one in case and separators only."""
        return name if name in self._known else self._by_form.get(normal_form(name))

    def named(self, record: Mapping[str, object]) -> Mapping[str, object]:
        """The record by known names; one that has a field of exactly the name keeps that."""
        if record.keys() <= self._known:
            return record
        found = {name: value for name, value in record.items() if name in self._known}
        others = [name for name in record if name not in self._known]
        for name in others:
            own = self.find(name)
            if own is not None:
                found.setdefault(own, record[name])
        self.note([name for name in others if self.find(name) is None], found.keys())
        return found

    def places(self, header: Sequence[str], where: str) -> dict[str, int]:
        """The places of a table's columns by known name, in the order of the header.

        Raises DatasetError, naming `where`, for a known column that is there twice or a required one that is not.
        """
        found: dict[str, int] = {}
        others = []
        for place, name in enumerate(header):
            known = self.find(name)
            if known is None:
                others.append(name or f"column {place + 1}, without a name")
            elif known in found:
                raise DatasetError(
                    f"{where} has two columns {known}, {header[found[known]]!r} and {name!r}; remove or rename one"
                )
            else:
                found[known] = place
        self.note(others, found.keys())
        missing = [" or ".join(group) for group in self.required if not any(name in found for name in group)]
        if missing or not found:
            raise DatasetError(
                f"{where} lacks the column{'s' if len(missing) > 1 else ''} "
                f"{' and '.join(missing) or ' or '.join(self.known)}; its columns are "
                f"{', '.join(map(repr, header[:_NUM_NAMED]))}{', …' if len(header) > _NUM_NAMED else ''}. "
                + (self.hint() or f"Name the columns in the first line, among {', '.join(self.known)}")
            )
        return found

    def note(self, others: Sequence[str], present: Collection[str]) -> None:
        """Remember names that are not read, beside those that are present."""
        for name in others:
            form = normal_form(name)
            if form in self._skipped:
                continue
            self.unknown[name] += 1
            if name not in self.meant:
                likely = self._likely(name, present)
                if likely:
                    self.meant[name] = likely

    def description(self) -> str:
        """`sku, name and size are not read; sku may be item_id, name may be title`; empty if there are none."""
        if not self.unknown:
            return ""
        names = [name for name, _ in self.unknown.most_common()]
        names.sort(key=lambda name: name not in self.meant)
        listed = ", ".join(repr(name) for name in names[:_NUM_NAMED])
        more = f" and {len(names) - _NUM_NAMED:,} more" if len(names) > _NUM_NAMED else ""
        text = f"{listed}{more} {'is' if len(names) == 1 else 'are'} not read"
        if self.meant:
            text += f"; {self.hint()}"
        return text

    def hint(self) -> str:
        """What was likely meant; empty if nothing is known."""
        return hint_of(self.meant)

    def _likely(self, name: str, present: Collection[str]) -> str | None:
        needless = {known for group in self.required if any(one in present for one in group) for known in group}
        free = [known for known in self.known if known not in present and known not in needless]
        return likely_name(name, free)
