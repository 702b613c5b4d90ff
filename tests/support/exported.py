"""What a real kluis exported, and whether a PromQL expression asks for nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

_METRIC: Final = re.compile(r"\b(kluis_[a-z0-9_]+)\b(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'\s*([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"\s*')
_GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left)\s*\(([^)]*)\)")
_PAIRS: Final = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True)
class Exported:
    """The names of samples, each with the values of its labels."""

    samples: Mapping[str, Mapping[str, frozenset[str]]]

    @classmethod
    def read(cls, *texts: str) -> Exported:
        """From what ``/metrics`` said."""
        found: dict[str, dict[str, set[str]]] = {}
        for text in texts:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    labels = found.setdefault(sample.name, {})
                    for name, value in sample.labels.items():
                        labels.setdefault(name, set()).add(value)
        return cls(
            {
                name: {label: frozenset(values) for label, values in labels.items()}
                for name, labels in found.items()
            }
        )

    def faults(self, expression: str, shown: str = "") -> Iterator[str]:
        """What is wrong with an expression, and with the labels that ``shown`` names of it."""
        if (fault := unbalanced(expression)) is not None:
            yield fault
        asked = _METRIC.findall(_without_texts(expression))
        known = {label for name, _ in asked for label in self.samples.get(name, ())}
        for name, _ in asked:
            if name not in self.samples:
                yield f"{name} is not exported"
        for name, matchers in _METRIC.findall(expression):
            for label, _ in _MATCHER.findall(matchers):
                if label not in self.samples.get(name, ()):
                    yield f"{name} has no label {label}"
        for label in _grouped(expression) | set(_shown_labels(shown)):
            if label not in known:
                yield f"nothing in it has a label {label}"


def metrics_of(expression: str) -> set[str]:
    """The names of kluis's metrics in an expression."""
    return {name for name, _ in _METRIC.findall(_without_texts(expression))}


def matched(expression: str, label: str) -> set[str]:
    """The values that an expression compares a label with; those of an alternative one by one."""
    return {
        value
        for _, matchers in _METRIC.findall(expression)
        for name, values in _MATCHER.findall(matchers)
        for value in values.split("|")
        if name == label
    }


def unbalanced(expression: str) -> str | None:
    """What of its brackets or quotes is not closed; None when all are."""
    if expression.count('"') % 2:
        return "a quote is not closed"
    opened: list[str] = []
    for char in _without_texts(expression):
        if char in _PAIRS.values():
            opened.append(char)
        elif char in _PAIRS and (not opened or opened.pop() != _PAIRS[char]):
            return f"a {char} closes nothing"
    return f"a {opened[-1]} is not closed" if opened else None


def _without_texts(expression: str) -> str:
    return re.sub(r'"[^"]*"', '""', expression)


def _grouped(expression: str) -> set[str]:
    lists = _GROUPING.findall(_without_texts(expression))
    return {label.strip() for labels in lists for label in labels.split(",") if label.strip()}


def _shown_labels(text: str) -> list[str]:
    """Labels in a legend, ``{{name}}``, or in an annotation, ``{{ $labels.name }}``."""
    return [
        name
        for inner in re.findall(r"\{\{([^}]*)\}\}", text)
        for name in re.findall(r"\$labels\.(\w+)", inner) or re.findall(r"^\s*(\w+)\s*$", inner)
    ]
