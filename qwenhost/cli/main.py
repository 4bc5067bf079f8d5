"""The ``qwenhost`` command: lazy sub-commands and the one place where errors are caught."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any, Final

import click

from qwenhost import __version__
from qwenhost.errors import BadInputError, QwenhostError

# Name -> (module:attribute, one line of help). The line stands here so that --help imports no command.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "inspect": ("qwenhost.cli.inspect:command", "Show the GPUs, their links, the host and its disk."),
    "plan": ("qwenhost.cli.plan:command", "Choose checkpoint, layout and every vLLM flag for a node."),
    "render": (
        "qwenhost.cli.render:command",
        "Write a plan as argv, config, docker, compose, systemd, Helm values or manifests.",
    ),
    "serve": ("qwenhost.cli.serve:command", "Start and supervise vLLM from a plan."),
    "fetch": ("qwenhost.cli.fetch:command", "Fetch and verify weights, and start nothing."),
    "status": ("qwenhost.cli.status:command", "Show the services started here."),
    "logs": ("qwenhost.cli.logs:command", "Print or follow a service's log."),
    "top": ("qwenhost.cli.top:command", "Watch a service's load, latency and cost."),
    "stop": ("qwenhost.cli.stop:command", "Drain and stop a service."),
    "k8s": ("qwenhost.cli.k8s:command", "Plan for a cluster's GPUs; check manifests."),
    "probe": ("qwenhost.cli.probe:command", "Load an endpoint and measure it."),
    "tune": (
        "qwenhost.cli.tune:command",
        "Measure the candidates that a plan cannot tell apart, and keep the best.",
    ),
    "calibrate": ("qwenhost.cli.calibrate:command", "Refit the speed model to runs of your own node."),
    "simulate": ("qwenhost.cli.simulate:command", "Run a plan against a load in virtual time."),
    "count-tokens": (
        "qwenhost.cli.count_tokens:command",
        "Count a sample with Qwen's and Claude's tokenizers.",
    ),
    "cost": ("qwenhost.cli.cost:command", "Price a workload or a usage file on the API side."),
    "compare": ("qwenhost.cli.compare:command", "Price self-hosting against Sonnet 4.6 and hosted Qwen."),
    "advise": ("qwenhost.cli.advise:command", "Say what to do, from what matters to you."),
    "report": ("qwenhost.cli.report:command", "Turn a saved comparison into terminal text or HTML."),
    "profiles": ("qwenhost.cli.profiles:command", "List, show and check the facts everything rests on."),
    "completion": ("qwenhost.cli.completion:command", "Print what makes a shell complete this command."),
    "doctor": ("qwenhost.cli.doctor:command", "Check this machine before a start and print remedies."),
    "demo": (
        "qwenhost.cli.demo:command",
        "Plan, serve, probe and compare on a simulated node, with a report.",
    ),
}
HIDDEN: Final[dict[str, str]] = {
    "_simulated-engine": "qwenhost.cli.simulated_engine:command",
}


def _keep_examples(command: click.Command) -> click.Command:
    r"""Turn the ``\b`` of raw docstrings into the character that tells Click not to reflow what follows."""
    command.help = (command.help or "").replace("\\b\n", "\b\n") or None
    return command


class _ReaderGoneError(Exception):
    """A broken pipe, past Click's own handling, which ends the process with 1."""


class LazyGroup(click.Group):
    """A group that imports a command when it is used; Click's own pattern."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and tell a reader that went away (``| head``) from a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGoneError from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of work, not of the alphabet."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module on first use."""
        del ctx
        target = COMMANDS[cmd_name][0] if cmd_name in COMMANDS else HIDDEN.get(cmd_name)
        if target is None:
            return None
        module, attribute = target.split(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command), target  # noqa: S101 - our own table
        return _keep_examples(found)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say which command may have been meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=3)
            if not near:
                raise
            message = f"{error.format_message()} Did you mean {' or '.join(near)}?"
            raise click.UsageError(message, ctx=ctx) from error


def _show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    """Answers depend on the facts as much as on the code."""
    if not asked or ctx.resilient_parsing:
        return
    from qwenhost.plan import DEFAULT_VLLM_VERSION
    from qwenhost.profiles import load_catalog

    known = load_catalog()
    click.echo(
        f"qwenhost {__version__}, for vLLM {DEFAULT_VLLM_VERSION}, facts as of {known.newest_fact} "
        f"({known.digest[:12]})"
    )
    ctx.exit()


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "-V", "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version,
    help="Show the version, the vLLM it plans for, and the date of the newest fact.",
)  # fmt: skip
@click.option(
    "--profiles",
    "profiles_dir",
    multiple=True,
    type=click.Path(path_type=str),
    help="Folder of your own profiles, merged over the built-in ones by id. Also QWENHOST_PROFILES.",
)
@click.option("--debug", is_flag=True, envvar="QWENHOST_DEBUG", help="Show tracebacks.")
@click.pass_context
def cli(ctx: click.Context, profiles_dir: tuple[str, ...], debug: bool) -> None:
    r"""Should you self-host Qwen3.5-122B-A10B instead of paying for Claude Sonnet 4.6, and how?

    \b
    qwenhost inspect                               what this machine has
    qwenhost plan --gpus 2xH200 --workload chat    which checkpoint, layout and flags
    qwenhost compare --gpus 2xH200 --workload chat what it costs on each side
    qwenhost serve plan.json                       run it
    """
    ctx.ensure_object(dict).update(profiles=profiles_dir, debug=debug)


_keep_examples(cli)


def main(argv: list[str] | None = None) -> None:
    """Entry point: run, print an error as one sentence and a remedy, exit with its code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    asked: dict[str, Any] = {}
    try:
        result: Any = cli.main(args=argv, prog_name="qwenhost", standalone_mode=False, obj=asked)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except _ReaderGoneError:
        # The reader went away (| head); point stdout elsewhere so that the interpreter's flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if asked.get("debug"):
            raise
        known = error if isinstance(error, QwenhostError) else _too_long(error) or _no_text(error)
        return _show(known or _fault(error))
    return result if isinstance(result, int) else 0


def _too_long(error: Exception) -> QwenhostError | None:
    """A name beyond what the system takes: wherever it is first looked at, it is the user's mistake."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return None
    said = f"{str(error.filename)[:60]}...: the name of a file or folder is too long"
    return BadInputError(said, remedy="Give a path whose parts have at most 255 characters.")


def _no_text(error: Exception) -> QwenhostError | None:
    """An argument of bytes that are no UTF-8 comes as halves of characters, which nothing can write."""
    if not isinstance(error, UnicodeEncodeError) or not error.reason.startswith("surrogates not"):
        return None
    said = f"{error.object[error.start : error.end]!r}: bytes that are no text in UTF-8"
    return BadInputError(said, remedy="Write the option's value or the file's name in UTF-8.")


def _fault(error: Exception) -> QwenhostError:
    """A mistake of ours, in one sentence that can be reported."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if f"{os.sep}qwenhost{os.sep}" in one.filename] or frames
    where = f"{ours[-1].filename.rpartition(f'{os.sep}qwenhost{os.sep}')[2]}:{ours[-1].lineno}"
    said = " ".join(str(error).split())[:300]
    return QwenhostError(
        f"a fault of qwenhost's own: {type(error).__name__}: {said} ({where})",
        remedy="Run it again with --debug before the command's name, and report what that prints.",
    )


def _show(error: QwenhostError) -> int:
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {error.message}", err=True)
    if error.remedy:
        click.echo(f"  {error.remedy}", err=True)
    return error.exit_code


if __name__ == "__main__":
    main()
