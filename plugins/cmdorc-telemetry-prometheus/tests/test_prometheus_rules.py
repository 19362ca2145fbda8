"""The rule file: what it says, and what Prometheus's own tool makes of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmdorc_telemetry.errors import ConfigError, SpecError
from cmdorc_telemetry.spec import CORE, load_spec, parse_toml
from cmdorc_telemetry_prometheus import PrometheusReporter, alert_rules
from cmdorc_telemetry_prometheus.__main__ import _settings

Make = Callable[..., Any]

SPEC = """
[meta]
name = "jobs"
version = 3

[[events]]
name = "ended"
semantics = { what = 'A "job" ended: 100 % {{' }
[events.properties]
state = { type = "enum", members = ["success", "failed", "cancelled"] }
took_ms = { type = "duration_ms" }
items = { type = "count" }
score = { type = "number", min = -10, max = 10 }
tenant = { type = "string", pattern = ".*", max_length = 9, audience = "private" }
[events.anomaly_detection]
minimum_sample = 10
actions = ["alert"]
[[events.anomaly_detection.thresholds]]
metric = "took_ms"
max = 1500
[[events.anomaly_detection.thresholds]]
metric = "p95(took_ms)"
max = 5000
[[events.anomaly_detection.thresholds]]
metric = "p95(score)"
max = 8
[[events.anomaly_detection.thresholds]]
metric = "mean(items)"
min = 3
max = 5
[[events.anomaly_detection.thresholds]]
metric = "score"
min = -2
[[events.anomaly_detection.thresholds]]
metric = "failure_share"
max = 0.4
[[events.anomaly_detection.thresholds]]
metric = "count"
min = 2
max = 100
"""


def judged(tmp_path: Path, promtool: Make, series: dict[str, str]) -> set[tuple[str, str]]:
    """What fires at the end of an hour of ``series``, and for which tenants, as promtool evaluates the rules."""
    rules = alert_rules(parse_toml(SPEC, "jobs.toml"), labels=("tenant",), pending="0s")
    (tmp_path / "rules.yml").write_text(rules)
    promtool("check", "rules", tmp_path / "rules.yml")
    # An alert that fires is a series of its own. Nothing is expected of it, so that promtool says what there is.
    asked = {"expr": "count by (alertname, tenant) (ALERTS{alertstate='firing'})", "eval_time": "60m"}
    tests = [{"interval": "1m", "input_series": written(series), "promql_expr_test": [asked]}]
    test = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yml").write_text(json.dumps(test))
    try:
        promtool("test", "rules", tmp_path / "test.yml")
    except AssertionError as said:
        return set(re.findall(r'\{alertname="(\w+)", tenant="(\w+)"\}', str(said)))
    return set()


def written(series: dict[str, str]) -> list[dict[str, str]]:
    """Series as promtool wants them, of one target."""
    return [{"series": f"{name[:-1]}, job='j', instance='i'}}", "values": values} for name, values in series.items()]


def histogram(metric: str, tenant: str, mean: float, rate: float) -> dict[str, str]:
    labels = f"{{tenant='{tenant}', state='success'}}"
    return {f"{metric}_sum{labels}": f"0+{mean * rate}x60", f"{metric}_count{labels}": f"0+{rate}x60"}


def test_what_fires(tmp_path: Path, promtool: Make) -> None:
    def total(tenant: str, state: str, rate: float) -> dict[str, str]:
        return {f"jobs_ended_total{{tenant='{tenant}', state='{state}'}}": f"0+{rate}x60"}

    series = {
        **histogram("jobs_ended_took_seconds", "slow", 2, 1), **histogram("jobs_ended_took_seconds", "quick", 1, 1),
        **histogram("jobs_ended_items", "many", 6, 1), **histogram("jobs_ended_items", "few", 2, 1),
        **histogram("jobs_ended_items", "right", 4, 1), **histogram("jobs_ended_items", "scarce", 2, 0.1),
        "jobs_ended_score{tenant='low', state='success'}": "-3x60",
        "jobs_ended_score{tenant='high', state='success'}": "3x60",
        "jobs_ended_score{tenant='odd', state='success'}": "0x50 9x10",
        **total("low", "success", 1), **total("high", "success", 1), **total("odd", "success", 1),
        # 20 of 100 runs take longer than five seconds, but their mean is low
        **{f"jobs_ended_took_seconds_bucket{{tenant='tail', state='success', le='{le}'}}": f"0+{rate}x60"
           for le, rate in (("1.0", 80), ("5.0", 80), ("10.0", 100), ("+Inf", 100))},
        **histogram("jobs_ended_took_seconds", "tail", 1, 100),
        **total("bad", "success", 0.5), **total("bad", "failed", 0.5), **total("bad", "cancelled", 0.5),
        **total("good", "success", 0.8), **total("good", "failed", 0.2), **total("good", "cancelled", 0.5),
        **total("fair", "success", 0.65), **total("fair", "failed", 0.35),
        **total("rare", "success", 0.01), **total("busy", "success", 3),
        **total("seldom", "success", 0.02), **total("seldom", "failed", 0.1),  # a bad share of too few
    }  # fmt: skip
    assert judged(tmp_path, promtool, series) == {
        ("JobsEndedTookMsHigh", "slow"), ("JobsEndedMeanItemsHigh", "many"), ("JobsEndedMeanItemsLow", "few"),
        ("JobsEndedScoreLow", "low"), ("JobsEndedFailureShareHigh", "bad"), ("JobsEndedCountLow", "rare"),
        ("JobsEndedP95TookMsHigh", "tail"), ("JobsEndedP95ScoreHigh", "odd"),
        ("JobsEndedCountHigh", "busy"),
    }  # fmt: skip


def test_fewer_than_the_least_sample_say_nothing(tmp_path: Path, promtool: Make) -> None:
    def runs(count: int) -> dict[str, str]:
        slow = histogram("jobs_ended_took_seconds", "slow", 9, 1)
        return {name: f"{values.removesuffix('x60')}x{count}" for name, values in slow.items()}

    assert judged(tmp_path, promtool, runs(8)) == set()
    assert judged(tmp_path, promtool, runs(12)) == {("JobsEndedTookMsHigh", "slow")}


def test_an_alert_says_what_it_is_about(tmp_path: Path, promtool: Make) -> None:
    (tmp_path / "rules.yml").write_text(alert_rules(parse_toml(SPEC, "jobs.toml"), labels=("tenant",)))
    series = written(histogram("jobs_ended_took_seconds", "slow", 2, 1))
    labels = {"event": "ended", "instance": "i", "job": "j", "metric": "took_ms", "severity": "warning",
              "spec": "jobs@3", "tenant": "slow"}  # fmt: skip
    annotations = {"description": 'A "job" ended: 100 % {{',
                   "summary": "slow: mean of took_ms of ended is 2s, above 1.5"}  # fmt: skip
    alert = {"eval_time": "60m", "alertname": "JobsEndedTookMsHigh",
             "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}]}  # fmt: skip
    tests = [{"interval": "1m", "input_series": series, "alert_rule_test": [alert]}]
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": tests}))
    promtool("test", "rules", tmp_path / "test.yml")


def test_groups_stay_apart_whatever_their_label_is_called(tmp_path: Path, promtool: Make) -> None:
    spec = parse_toml(SPEC.replace("tenant", "metric"), "jobs.toml")
    (tmp_path / "rules.yml").write_text(alert_rules(spec, labels=("metric",), pending="0s"))
    slow = (histogram("jobs_ended_took_seconds", tenant, 2, 1) for tenant in ("a", "b"))
    series = {name.replace("tenant", "metric"): values for each in slow for name, values in each.items()}
    asked = {"expr": "count by (metric) (ALERTS{alertname='JobsEndedTookMsHigh'})", "eval_time": "60m",
             "exp_samples": [{"labels": f"{{metric='{name}'}}", "value": 1} for name in "ab"]}  # fmt: skip
    tests = [{"interval": "1m", "input_series": written(series), "promql_expr_test": [asked]}]
    test = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yml").write_text(json.dumps(test))
    promtool("test", "rules", tmp_path / "test.yml")


def test_the_rules_of_the_core_spec_from_the_command_line(tmp_path: Path, promtool: Make) -> None:
    rules = tmp_path / "rules.yml"
    for arguments in ([], [CORE]):
        done = subprocess.run([sys.executable, "-m", "cmdorc_telemetry_prometheus", "rules", *arguments],
                              stdout=subprocess.PIPE, check=True, timeout=30)  # fmt: skip
        rules.write_bytes(done.stdout)
        assert rules.read_text() == alert_rules(load_spec(CORE))
        assert "1 rules found" in promtool("check", "rules", rules)
    assert "interval: 60s\n" in rules.read_text()
    assert "> 600)" in rules.read_text()


@pytest.mark.parametrize(
    "change",
    [
        ("minimum_sample = 10", "minimum_sample = 10\nenabled = false"),
        ("version = 3", "version = 3\n[config]\nanomaly_detection = false"),
    ],
)
def test_what_is_switched_off_has_no_rules(tmp_path: Path, promtool: Make, change: tuple[str, str]) -> None:
    rules = alert_rules(parse_toml(SPEC.replace(*change), "jobs.toml"))
    assert rules.endswith("groups: []\n")
    (tmp_path / "rules.yml").write_text(rules)
    promtool("check", "rules", tmp_path / "rules.yml")


@pytest.mark.parametrize("metric", ["state", "tenant", "unheard_of", "p99(score)"])
def test_a_threshold_of_what_is_no_number(metric: str) -> None:
    spec = parse_toml(SPEC.replace('metric = "score"', f'metric = "{metric}"'), "jobs.toml")
    with pytest.raises(
        SpecError,
        match=rf"^jobs@3: events.ended.anomaly_detection.thresholds\[4\].metric: found {re.escape(repr(metric))}",
    ):
        alert_rules(spec)


def test_a_share_of_failures_where_nothing_says_what_failed() -> None:
    spec = parse_toml(SPEC.replace('"failed", ', ""), "jobs.toml")
    with pytest.raises(SpecError, match="found 'failure_share'; expected a number of the event"):
        alert_rules(spec)


@pytest.mark.parametrize("given", ["", "1", "h", "1h 30m", "-1h"])
def test_what_is_no_duration(given: str) -> None:
    with pytest.raises(ConfigError, match=f"^window: found {given!r}; expected a duration"):
        alert_rules(load_spec(CORE), window=given)


def test_a_plugin_that_is_listed_and_has_no_table_is_a_destination(home: Path) -> None:
    (home / "config.toml").write_text('[telemetry]\nplugins = ["prometheus"]\n')
    assert _settings(home / "config.toml", None) == PrometheusReporter.Settings()


def test_settings_that_are_in_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text('[telemetry]\nplugins = ["prometheus"]\n'
                                      '[telemetry.to.mine]\nplugin = "prometheus"\naudience = "private"\n'
                                      'host_env = "METRICS_HOST"\n')  # fmt: skip
    monkeypatch.setenv("METRICS_HOST", "::1")
    assert _settings(home / "config.toml", "mine").host == "::1"


def test_commands_say_what_is_wrong(home: Path, tmp_path: Path) -> None:
    def fails(*arguments: object) -> str:
        done = subprocess.run([sys.executable, "-m", "cmdorc_telemetry_prometheus", *map(str, arguments)],
                              capture_output=True, text=True, timeout=30, check=False)  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    config = home / "config.toml"
    assert fails("rules", tmp_path / "none.toml").startswith(f"error: {tmp_path}/none.toml: cannot be read")
    assert fails("rules", "--window", "long") == "error: window: found 'long'; expected a duration such as 30m or 1h\n"
    asked = "found no 'prometheus'; expected it, where its metrics are to be served"
    assert fails("serve") == f"error: {config}: telemetry.plugins: {asked}\n"
    both = '[telemetry.to.a]\nplugin = "prometheus"\nport = 0\n'
    both += '[telemetry.to.b]\nplugin = "prometheus"\npath = "/b.prom"\n'
    config.write_text(both)
    assert fails("serve", "a") == f"error: {config}: telemetry.plugins: {asked}\n", "it was disabled"
    config.write_text(f'[telemetry]\nplugins = ["prometheus"]\n{both}')
    assert fails("serve") == f"error: {config}: telemetry.to: nothing was named; expected one of a, b\n"
    assert fails("serve", "c") == f"error: {config}: telemetry.to: found no 'c'; expected one of a, b\n"
    assert fails("serve", "a").startswith(f"error: {config}: telemetry.to.a: port: found 0; expected 1 to 65535")
    assert fails("serve", "b") == "error: serve: the destination has a path and no port; expected both\n"
