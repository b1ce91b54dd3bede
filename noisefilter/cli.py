"""The command line: which commands there are. Each lives in the room whose work it does."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from noisefilter import __version__

if TYPE_CHECKING:
    import typer

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 when all went well, 2 for bad input, 130 for Ctrl-C.

    An audit exits 1 if the noise rate is above ``--fail-above``; a fault of ours exits 3.

    Parameters
    ----------
    args : sequence of str, optional
        The arguments; by default those of the process.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a name the terminal cannot show must not end the audit
                stream.reconfigure(errors="backslashreplace")
        app = build_app()
        app(args=args, prog_name="noisefilter", obj=list(sys.argv[1:] if args is None else args))
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package not in ("rich", "typer"):
            raise
        print(f'The command line needs {package}: pip install "noisefilter[audit]"', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before a command has begun, or after its end
        sys.exit(130)


def build_app() -> typer.Typer:
    """Return the application; importing what it is made of takes a moment."""
    import typer

    from noisefilter.audit.apply import apply
    from noisefilter.audit.command import audit
    from noisefilter.audit.plant import noise
    from noisefilter.training.command import train
    from noisefilter.training.predict import predict

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
    about = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version.")

    def noisefilter(version: bool = about) -> None:
        """Find wrong labels in a data set, look at them, write the corrected data, or train despite them.

        Example: noisefilter audit photos/ --out audit/
        """

    app.callback()(noisefilter)
    for command in (audit, apply, train, predict, noise):
        app.command()(command)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"noisefilter {__version__}")
        raise SystemExit
