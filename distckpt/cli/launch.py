"""``distckpt launch``: parses, calls `distckpt.launcher.launch`, and exits with its exit code."""

from __future__ import annotations

import click

from distckpt.errors import ConfigurationError, DistckptError

_EPILOG = """\b
Examples:
  distckpt launch --workers 4 -- python train.py --epochs 3
  distckpt launch --workers 2 --max-restarts 3 --log-dir logs -- python train.py
  distckpt launch --workers 3 --chief --env TF_CPP_MIN_LOG_LEVEL=0 -- ./train.sh

\b
Exit codes:
  0            all workers finished with exit code 0
  2            wrong usage, or the log directory cannot be written
  126, 127     the command cannot be executed, or was not found
  129          SIGHUP: the terminal was closed
  130          SIGINT (Ctrl-C)
  143          SIGTERM
  otherwise    of the worker that failed first after the last restart: its exit
               code, or 128 + n if signal n killed it (137: SIGKILL)
"""


@click.command(
    "launch",
    # Options after the first word of the command belong to the command, even without "--".
    context_settings={"allow_interspersed_args": False},
    epilog=_EPILOG,
)
@click.option(
    "--workers", type=int, required=True, metavar="N", help="Number of processes to start."
)
@click.option(
    "--chief",
    is_flag=True,
    help='Make the first of the N processes the task "chief", the others workers 0 to N-2.',
)
@click.option(
    "--max-restarts",
    type=int,
    default=0,
    show_default=True,
    metavar="R",
    help="Start the whole cluster again, at most R times, when a worker dies.",
)
@click.option(
    "--log-dir",
    type=click.Path(),
    metavar="DIR",
    help="Also keep the output of each worker, in DIR/worker-1.restart-0.log and so on; "
    "files of an earlier run with the same name are replaced.",
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set an environment variable for the workers. May be repeated.",
)
@click.option(
    "--grace",
    type=float,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Time for the workers to end after SIGINT or SIGTERM, before SIGKILL.",
)
@click.option(
    "--stop-grace",
    type=float,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Time for the other workers to end after one died, before SIGKILL.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def launch_command(
    context: click.Context,
    workers: int,
    chief: bool,
    max_restarts: int,
    log_dir: str | None,
    variables: tuple[str, ...],
    grace: float,
    stop_grace: float,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND as a cluster of N workers on this machine.

    Every worker gets a TF_CONFIG with free local ports, as tf.distribute wants it, and
    DISTCKPT_RUN_ID (one for the whole run) and DISTCKPT_RESTART (0, 1, ... up to R). Unless they
    are set, TF_CPP_MIN_LOG_LEVEL=2 and PYTHONUNBUFFERED=1 are set too. Standard input is empty.

    What workers write to stdout and stderr appears there, each line with the worker before it:
    "[worker 1] ...". Progress bars that redraw their line show about one line a second. Colours
    appear on a terminal, unless NO_COLOR is set.

    When a worker dies (exit code other than 0, or a signal), the others get SIGTERM, SIGKILL after
    --stop-grace, and everything starts again on fresh ports, if restarts are left.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP are passed on to the workers and their children; after
    --grace they get SIGKILL; a second Ctrl-C kills them at once. No process stays behind, however
    the launcher ends.
    """
    from distckpt import launcher

    try:
        spec = launcher.LaunchSpec(
            command=command,
            workers=workers,
            chief=chief,
            max_restarts=max_restarts,
            log_dir=log_dir,
            env=parse_variables(variables),
            grace=grace,
            stop_grace=stop_grace,
        )
        context.exit(launcher.launch(spec).exit_code)
    except launcher.CommandError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    except DistckptError as error:
        raise click.ClickException(str(error)) from error


def parse_variables(variables: tuple[str, ...]) -> dict[str, str]:
    """Returns the variables given as "KEY=VALUE"; the last one of a name wins.

    Raises:
      click.BadParameter: One has no "=", or nothing before it.
    """
    parsed = {}
    for variable in variables:
        name, equals, value = variable.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{variable!r} is not KEY=VALUE.", param_hint="'--env'")
        parsed[name] = value
    return parsed
