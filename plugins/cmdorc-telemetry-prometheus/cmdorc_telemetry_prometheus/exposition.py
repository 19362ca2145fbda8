"""What was counted, in Prometheus's own words: by its official library, from a state or from a tally."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from cmdorc_telemetry.spec.instruments import Family
from cmdorc_telemetry.tally import SUM, Sample, bound, read
from cmdorc_telemetry.tally.counts import Contents, Counts

from .tally import Tally


class StateCollector(Collector):
    """Reads the state at each scrape."""

    def __init__(self, state: Counts) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """All metrics of one moment."""
        return metrics(self._state.read())


class _Once(Collector):
    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    def collect(self) -> Iterable[Metric]:
        return metrics(self._contents)


def text(contents: Contents) -> bytes:
    """The text exposition format, version 0.0.4, which everybody reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(contents))
    return bytes(generate_latest(registry))


def additions(tally: Tally) -> bytes:
    """What a tally adds, a line a sample, sorted; of a histogram what lies in each bucket alone."""
    samples = {**tally.added, **{sample: value for sample, (value, _) in tally.latest.items()}}
    lines = [_line(tally.families[sample.metric], sample, value) for sample, value in samples.items()]
    return "".join(sorted(lines)).encode()


def _line(family: Family, sample: Sample, value: float) -> str:
    named = read(sample.labels)
    suffix = "_total" if family.kind == "counter" else ""
    if sample.part:
        suffix = "_sum" if sample.part == SUM else "_bucket"
        named.update({} if sample.part == SUM else {"le": sample.part})
    labels = ",".join([f'{name}="{_escaped(text)}"' for name, text in named.items()])
    return f"{sample.metric}{suffix}{{{labels}}} {value:.15g}\n"


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def metrics(contents: Contents) -> Iterator[Metric]:
    """Sorted by name, then by labels."""
    by_metric: dict[str, dict[str, dict[str, float]]] = {}
    for sample, value in contents.samples.items():
        parts = by_metric.setdefault(sample.metric, {}).setdefault(sample.labels, {})
        parts[sample.part] = parts.get(sample.part, 0.0) + value  # of several epochs
    for name, series in sorted(by_metric.items()):
        family = contents.families[name]
        metric = Metric(name, family.help, family.kind)
        for labels, parts in sorted(series.items()):
            named = read(labels)
            for suffix, more, value in _lines(family, parts):
                metric.add_sample(name + suffix, {**named, **more}, value)
        yield metric


def _lines(family: Family, parts: Mapping[str, float]) -> Iterator[tuple[str, dict[str, str], float]]:
    """Suffix, labels beside the series' own, and value."""
    if family.kind != "histogram":
        yield "_total" if family.kind == "counter" else "", {}, parts[""]
        return
    count = 0.0
    for edge in (*family.edges, inf):
        count += parts.get(bound(edge), 0.0)
        yield "_bucket", {"le": bound(edge)}, count
    if SUM in parts:  # where only ranges are known there is none; and in OpenMetrics no count without a sum
        yield "_count", {}, count
        yield "_sum", {}, parts[SUM]
