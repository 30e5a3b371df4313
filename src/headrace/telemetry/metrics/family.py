"""What a metric is: its name, kind, labels, buckets, and how the figures of several processes become one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

EXEMPLAR_SLOTS = 6
"""Version, trace id (two), span id, value, time: see ``store.Exemplar``."""

MAX_LABEL_CHARS = 1_024
"""Of one value of a label. Longer ones are cut: pages and memory must have a bound."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


class Kind(StrEnum):
    """The types of Prometheus and OpenMetrics that are written here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    """Count and sum, without quantiles."""


_SUFFIXES = {
    Kind.COUNTER: ("_total", "_created"),
    Kind.GAUGE: (),
    Kind.HISTOGRAM: ("_bucket", "_count", "_sum", "_created"),
    Kind.SUMMARY: ("_count", "_sum", "_created"),
}


class Merge(StrEnum):
    """How the figures of several processes become one; the words are prometheus_client's.

    ``all`` shows each process's figure with a label ``pid``. Those that begin with ``live`` forget a process
    when it ends; the others keep its last figure.
    """

    ALL = "all"
    LIVEALL = "liveall"
    MIN = "min"
    LIVEMIN = "livemin"
    MAX = "max"
    LIVEMAX = "livemax"
    SUM = "sum"
    LIVESUM = "livesum"
    MOSTRECENT = "mostrecent"
    LIVEMOSTRECENT = "livemostrecent"

    @property
    def is_live(self) -> bool:
        """A process is forgotten when it ends."""
        return self.value.startswith("live")

    @property
    def how(self) -> Merge:
        """The same without ``live``."""
        return Merge(self.value.removeprefix("live"))


@dataclass(frozen=True)
class Family:
    """A metric and all its series.

    Args:
        name: letters, digits, ``_``, ``:``; a counter's without ``_total``, which the page adds.
        kind: its type.
        help: one sentence for people.
        labels: names of its labels, in the order of the values of each series.
        buckets: a histogram's upper bounds, ascending; ``+Inf`` is added and need not be given.
        merge: for a gauge, and for what is asked for in samples; everything else is summed.
        has_exemplars: each series keeps the trace of its latest sampled value.
        in_samples: its series are written sample by sample (``_sum``, each bucket) by somebody who does not
            know the whole; prometheus_client works that way.

    Raises:
        ValueError: a name or the buckets are not valid.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Merge = Merge.SUM
    has_exemplars: bool = False
    in_samples: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r:.80} is no name of a metric: letters, digits, _ and : only")
        if self.kind is Kind.COUNTER and self.name.endswith("_total"):
            raise ValueError(f"{self.name}: leave _total out, the page adds it")
        reserved = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}.get(self.kind)
        for label in self.labels:
            if not _LABEL.fullmatch(label) or label == reserved:
                raise ValueError(f"{self.name}: {label!r:.80} is no name of a label")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"{self.name}: a label stands there twice")
        if self.merge is not Merge.SUM and self.kind is not Kind.GAUGE and not self.in_samples:
            raise ValueError(f"{self.name}: only a gauge is merged in another way than by its sum")
        buckets = tuple(float(bound) for bound in self.buckets if bound != math.inf)
        if any(math.isnan(bound) for bound in buckets) or list(buckets) != sorted(set(buckets)):
            raise ValueError(f"{self.name}: bounds of buckets must ascend")
        if self.kind is Kind.HISTOGRAM and not buckets and not self.in_samples:
            raise ValueError(f"{self.name}: a histogram needs a bucket beside +Inf")
        object.__setattr__(self, "buckets", buckets)

    @cached_property
    def value_slots(self) -> int:
        """Numbers of one series: a histogram's are its buckets' own counts, ``+Inf`` last, then the sum; a
        summary's are count and sum; a gauge merged by time has its time (Unix, s) behind it."""
        if self.merge.how is Merge.MOSTRECENT:
            return 2
        if self.in_samples or self.kind in (Kind.COUNTER, Kind.GAUGE):
            return 1
        return 2 if self.kind is Kind.SUMMARY else len(self.buckets) + 2

    @cached_property
    def is_removable(self) -> bool:
        """Its series may go again, and their numbers be given to others. What is summed stays: it must not
        fall."""
        return self.in_samples and (self.kind is Kind.GAUGE or self.merge is not Merge.SUM)

    @cached_property
    def slots(self) -> int:
        """Numbers of one series in the store: behind the values stand those of its exemplar, or, of one that
        may go, which of the series it is that had this place."""
        return self.value_slots + (EXEMPLAR_SLOTS if self.has_exemplars else int(self.is_removable))

    @property
    def shape(self) -> tuple[Any, ...]:
        """What two processes must agree on for their figures to be merged."""
        return (self.kind, self.labels, self.buckets, self.merge, self.in_samples)

    @property
    def page_shape(self) -> tuple[Any, ...]:
        """The same where the order of labels does not matter, as it does not on the page."""
        return (self.kind, tuple(sorted(self.labels)), self.buckets, self.merge, self.in_samples)

    @property
    def line_names(self) -> frozenset[str]:
        """Its own name and those of its lines, which no other metric may have."""
        return frozenset((self.name, *(f"{self.name}{suffix}" for suffix in _SUFFIXES[self.kind])))

    @property
    def page_labels(self) -> tuple[str, ...]:
        """The labels as shown: ``pid`` is added where each process's figure stands for itself."""
        is_added = self.merge.how is Merge.ALL and "pid" not in self.labels
        return (*self.labels, "pid") if is_added else self.labels

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` takes it."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "help": self.help,
            "labels": self.labels,
            "buckets": self.buckets,
            "merge": self.merge.value,
            "has_exemplars": self.has_exemplars,
            "in_samples": self.in_samples,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Family:
        """Read what ``to_json`` gave.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        return cls(
            name=fields["name"],
            kind=Kind(fields["kind"]),
            help=str(fields["help"]),
            labels=tuple(fields["labels"]),
            buckets=tuple(fields["buckets"]),
            merge=Merge(fields["merge"]),
            has_exemplars=bool(fields["has_exemplars"]),
            in_samples=bool(fields["in_samples"]),
        )


def legal_name(text: str) -> str:
    """A name that every Prometheus takes: other characters become ``_``, as its own escaping does."""
    name = re.sub(r"[^a-zA-Z0-9_:]", "_", text)
    return name if name[:1] and not name[0].isdigit() else f"_{name}"


def label_text(text: str) -> str:
    """A label's value as it is kept: text that UTF-8 can say, of ``MAX_LABEL_CHARS`` at most."""
    return legal_text(text if len(text) <= MAX_LABEL_CHARS else f"{text[: MAX_LABEL_CHARS - 1]}…")


def legal_text(text: str) -> str:
    """Text that UTF-8 can say: a half of a surrogate pair, as undecodable bytes leave, becomes ``?``."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
