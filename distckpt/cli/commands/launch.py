"""``distckpt launch``: parses options, calls `distckpt.launcher`, and exits with its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from distckpt import exit_codes
from distckpt.errors import ConfigurationError, DistckptError
from distckpt.runtime import portable

if TYPE_CHECKING:
    from distckpt.launcher import LaunchSpec
    from distckpt.launcher.pod import PodSpec

_CODES = "\n".join(
    f"  {code:<12} {meaning}"
    for code, meaning in sorted(exit_codes.MEANINGS.items())
    if code not in (exit_codes.FINISHED, exit_codes.USAGE)
)
_EPILOG = f"""\b
Examples:
  distckpt launch --workers 4 -- python train.py --epochs 3
  distckpt launch --workers 2 --max-restarts 3 --log-dir logs -- python train.py
  distckpt launch --workers 3 --chief --env TF_CPP_MIN_LOG_LEVEL=0 -- ./train.sh
  distckpt launch --elastic 2:4 --max-restarts 10 -- python train.py
  distckpt launch --replicas 3 --service digits -- python train.py    (in a pod)
  srun distckpt launch -- python train.py                             (Slurm)

\b
Exit codes:
  0            all workers finished with exit code 0
  2            wrong usage, or the log directory cannot be written
{_CODES}
  129          SIGHUP: the terminal was closed
  130          SIGINT (Ctrl-C)
  143          SIGTERM
  otherwise    the exit code of the worker that failed first after the last restart,
               or 128 + n if signal n killed it (137: SIGKILL)
"""
# Options of only one of the two ways to start: parameter name and option.
_LOCAL_ONLY = {
    "chief": "--chief",
    "max_restarts": "--max-restarts",
    "log_dir": "--log-dir",
    "stop_grace": "--stop-grace",
    "elastic_wait": "--elastic-wait",
}
_POD_ONLY = {
    "replicas": "--replicas",
    "service": "--service",
    "port": "--port",
    "peer_deadline": "--peer-deadline",
    "retry_code": "--retry-code",
}


@click.command(
    "launch",
    short_help="Start the workers of a job, on this machine or in a pod.",
    # Options after the first word of the command belong to the command, even without "--".
    context_settings={"allow_interspersed_args": False},
    epilog=_EPILOG,
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Start N processes on this machine. Without it, start the one worker of this pod.",
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
    help="When a worker dies, restart the whole cluster, at most R times.",
)
@click.option(
    "--elastic",
    metavar="LEAST:MOST",
    help="Start MOST processes, or --workers, on this machine. When a worker is lost, restart with "
    "the remaining ones while at least LEAST remain. Each restart counts towards --max-restarts.",
)
@click.option(
    "--elastic-wait",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="With --elastic: how long to wait before a restart with fewer workers.",
)
@click.option(
    "--log-dir",
    type=click.Path(),
    metavar="DIR",
    help="Also write the output of each worker to DIR/worker-1.restart-0.log and so on; files of "
    "an earlier run are replaced.",
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
    envvar="DISTCKPT_GRACE_SECONDS",
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="How long the workers have to end after SIGINT or SIGTERM, before SIGKILL.",
)
@click.option(
    "--stop-grace",
    type=float,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the other workers have to end after the death of a worker, before SIGKILL.",
)
@click.option(
    "--replicas",
    type=int,
    envvar="DISTCKPT_WORKERS",
    show_envvar=True,
    metavar="N",
    help="In a pod: the number of workers, if the scheduler does not provide it.",
)
@click.option(
    "--service",
    envvar="DISTCKPT_SERVICE",
    show_envvar=True,
    metavar="NAME",
    help="In a pod: the headless Service through which the pods find each other.",
)
@click.option(
    "--port",
    type=int,
    default=2222,
    envvar="DISTCKPT_PORT",
    show_default=True,
    show_envvar=True,
    metavar="P",
    help="In a pod: the port of TensorFlow; on a node with several workers, that of the first.",
)
@click.option(
    "--peer-deadline",
    type=float,
    default=600.0,
    envvar="DISTCKPT_PEER_DEADLINE",
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="In a pod: how long to wait for the other workers.",
)
@click.option(
    "--retry-code",
    type=click.IntRange(1, 255),
    envvar="DISTCKPT_RETRY_CODE",
    show_envvar=True,
    metavar="CODE",
    help="In a pod: exit with CODE instead of 69, 75 and 76, for schedulers that look at ranges of "
    "exit codes (138 for Kubeflow's restartPolicy ExitCode).",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def launch_command(
    context: click.Context, /, workers: int | None, elastic: str | None, **options: Any
) -> None:
    """Run COMMAND as a cluster of N workers on this machine, or as this pod's one worker.

    With --workers (or --elastic), every worker gets a TF_CONFIG with free local ports for
    tf.distribute, DISTCKPT_RUN_ID (the same for the whole run) and DISTCKPT_RESTART (0, 1, ... up
    to R). TF_CPP_MIN_LOG_LEVEL=2 and PYTHONUNBUFFERED=1 are set, unless they already are. Standard
    input is empty.

    The workers' stdout and stderr are forwarded, with the worker in front of each line:
    "[worker 1] ...". A progress bar that redraws its line prints about one line a second. Colours
    appear on a terminal, unless NO_COLOR is set.

    When a worker dies (exit code other than 0, or a signal), the others get SIGTERM, and SIGKILL
    after --stop-grace; if restarts remain, all start again on fresh ports.

    Without --workers, the launcher starts one worker and takes its index from TF_CONFIG (a TFJob),
    JOB_COMPLETION_INDEX (an Indexed Job, a JobSet or a TrainJob of Kubernetes), SLURM_PROCID (srun)
    or the host name (a StatefulSet). It waits for all other workers, names those that are missing,
    and gives the worker its TF_CONFIG. The exit code tells the scheduler whether to start the
    worker again; the scheduler does that, so there is no --max-restarts. The worker's output is not
    changed.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP are forwarded to the workers and their children, which get
    SIGKILL after --grace; a second Ctrl-C kills them at once. However the launcher ends, no process
    is left behind.
    """
    try:
        portable.require("distckpt launch", "your scheduler")
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    local = workers is not None or elastic is not None
    _refuse(context, _POD_ONLY if local else _LOCAL_ONLY, local)
    options["env"] = parse_variables(options.pop("variables"))
    if local:
        names = set(_POD_ONLY)
        of_local = {name: value for name, value in options.items() if name not in names}
        _launch(context, workers=workers, elastic=elastic, **of_local)
    else:
        names = set(_LOCAL_ONLY)
        _run_in_pod(context, **{k: v for k, v in options.items() if k not in names})


def _launch(
    context: click.Context, *, workers: int | None, elastic: str | None, **options: Any
) -> None:
    from distckpt import launcher

    try:
        if elastic is not None:
            options["least"], most = parse_elastic(elastic)
            workers = most if workers is None else workers
            if workers > most:
                raise ConfigurationError(
                    f"--workers {workers} is more than the {most} of --elastic {elastic}."
                )
        assert workers is not None
        spec: LaunchSpec = launcher.LaunchSpec(workers=workers, **options)
        context.exit(launcher.launch(spec).exit_code)
    except launcher.CommandError as error:
        _fail(context, error, error.exit_code)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    except DistckptError as error:
        raise click.ClickException(str(error)) from error


def _run_in_pod(context: click.Context, *, retry_code: int | None, **options: Any) -> None:
    from distckpt import launcher
    from distckpt.launcher import pod

    try:
        spec: PodSpec = pod.PodSpec(**options)
        code = pod.run(spec)
    except launcher.CommandError as error:
        _fail(context, error, error.exit_code)
    except DistckptError as error:
        click.echo(f"Error: {error}", err=True)
        code = exit_codes.of(error)
    context.exit(retry_code if retry_code is not None and code in exit_codes.RETRY else code)


def _fail(context: click.Context, error: Exception, code: int) -> None:
    click.echo(f"Error: {error}", err=True)
    context.exit(code)


def _refuse(context: click.Context, names: dict[str, str], local: bool) -> None:
    """Refuses options of the command line that belong to the other way to start.

    Options set by the environment are ignored instead: a pod may start a local cluster.
    """
    for name, option in names.items():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            why = (
                "is for the one worker of a pod, but --workers or --elastic starts several here"
                if local
                else "is for workers on this machine and needs --workers or --elastic"
            )
            more = (
                " (in a pod, the scheduler restarts the worker)"
                if name == "max_restarts" and not local
                else ""
            )
            raise click.UsageError(f"{option} {why}{more}.")


def parse_elastic(text: str) -> tuple[int, int]:
    """Returns the numbers in "2:4".

    Raises:
      click.BadParameter: The text has another form, or the numbers make no sense.
    """
    least, _, most = text.partition(":")
    numbers = [int(n) if n.isascii() and n.isdecimal() and len(n) < 9 else 0 for n in (least, most)]
    if not 1 <= numbers[0] <= numbers[1]:
        raise click.BadParameter(
            f"{text!r} is not LEAST:MOST, such as 2:4, with 1 <= LEAST <= MOST.",
            param_hint="'--elastic'",
        )
    return numbers[0], numbers[1]


def parse_variables(variables: tuple[str, ...]) -> dict[str, str]:
    """Returns the variables given as "KEY=VALUE"; the last value of a name wins.

    Raises:
      click.BadParameter: A variable has no "=" or no name.
    """
    parsed = {}
    for variable in variables:
        name, equals, value = variable.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{variable!r} is not KEY=VALUE.", param_hint="'--env'")
        parsed[name] = value
    return parsed
