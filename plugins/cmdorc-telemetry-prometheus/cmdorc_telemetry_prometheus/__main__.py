"""``python -m cmdorc_telemetry_prometheus``: alert rules of a spec, and an endpoint that stays."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cmdorc_telemetry.application import CMDORC
from cmdorc_telemetry.errors import ConfigError, TelemetryError
from cmdorc_telemetry.home import Home

if TYPE_CHECKING:
    from .reporter import PrometheusReporter


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Metrics of cmdorc-telemetry for Prometheus."""


@main.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--window", default="1h", show_default=True, help="What is judged: so much of the past.")
@click.option("--for", "pending", default="5m", show_default=True, help="How long it lasts before the alert fires.")
@click.option("--label", "labels", multiple=True, default=("command_name",), show_default=True,
              help="A property that the destination has among its labels. Repeatable.")  # fmt: skip
def rules(file: Path | None, window: str, pending: str, labels: tuple[str, ...]) -> None:
    """Print the alert rules that the thresholds in a spec FILE are; of cmdorc's own where none is given."""
    from cmdorc_telemetry.spec import CORE, load_spec

    from .rules import alert_rules

    click.echo(alert_rules(load_spec(file or CORE), window=window, pending=pending, labels=labels), nl=False)


@main.command()
@click.argument("name", required=False)
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Default: config.toml in ~/.cmdorc.")
def serve(name: str | None, config: Path | None) -> None:
    """Serve the metrics of the destination NAME until Ctrl-C, whether or not a program runs that counts.

    NAME can be left out where there is one destination of this plugin. What serves them now goes on until it ends, and
    so does the next one after this.
    """
    from .endpoint import Endpoint
    from .reporter import state_of

    settings = _settings(config or Home.of(CMDORC).config, name)
    if settings.port is None:
        raise ConfigError("serve", "", "the destination has a path and no port", "both")
    address = f"http://{settings.host}:{settings.port}/metrics"
    endpoint = Endpoint(settings.host, settings.port, state_of(settings),
                        lambda what: click.echo(f"{address}: {what}", err=True))  # fmt: skip
    endpoint.start()
    try:
        endpoint.wait()
    except KeyboardInterrupt:
        endpoint.close()


def _settings(config: Path, name: str | None) -> PrometheusReporter.Settings:
    """The settings of a destination that ``config`` has. Raises ConfigError."""
    from cmdorc_telemetry.config import DestinationConfig, load_layer
    from cmdorc_telemetry.decoding import decode

    from .reporter import PrometheusReporter

    own = str(PrometheusReporter.name)
    layer = load_layer(config)
    if own not in layer.plugins:
        raise ConfigError(config, "telemetry.plugins", f"found no {own!r}", "it, where its metrics are to be served")
    found = {to.name: to for to in layer.destinations if to.plugin == own}
    if not found:
        found[own] = DestinationConfig(own, own)
    if len(found) != 1 if name is None else name not in found:
        raise ConfigError(config, "telemetry.to", "nothing was named" if name is None else f"found no {name!r}",
                          f"one of {', '.join(found)}")  # fmt: skip
    to = found[name or next(iter(found))]
    return decode(to.resolved(os.environ), PrometheusReporter.Settings, config, key=f"telemetry.to.{to.name}")


if __name__ == "__main__":
    try:
        main()
    except TelemetryError as fault:
        click.echo(f"error: {fault}", err=True)
        sys.exit(1)
