"""Whether shell lines that are shown would work: commands, options, files of the repository."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click

from distckpt.cli import main

from .fences import ROOT

# Programs that a page may name and that are none of ours; their arguments are not judged, but for
# paths into the repository.
_TOOLS = ("cat", "cd", "cp", "echo", "eval", "export", "head", "jq", "kill", "ls", "mkdir", "mv")
FOREIGN = {
    *_TOOLS,
    "docker",
    "helm",
    "kubectl",
    "kustomize",
    "pip",
    "podman",
    "rm",
    "sbatch",
    "tail",
}
_OUR_FOLDERS = ("distckpt/", "docs/", "k8s/", "launch/", "tests/", ".ci/")
_INTERPRETERS = ("bash", "sh", "python")
_SEPARATORS = frozenset({"&&", "||", "|", ";", "&"})
_MARKS_OF_PLACES = re.compile(r"…|\.\.\.|[|\[\]]")


def commands(code: str) -> Iterator[list[str]]:
    """Yields the words of each command: comments, assignments and redirections are left out."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in _SEPARATORS:
                words.append(word)
                continue
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []


def mistakes(code: str) -> list[str]:
    """Returns what is wrong with shell lines."""
    return [mistake for words in commands(code) for mistake in _of_command(words)]


def _of_command(words: list[str]) -> Iterator[str]:
    if words[0] == "srun":
        words = words[1:]
    name = words[0].rpartition("/")[2]
    if name == "distckpt":
        yield from wrong_usage(words[1:])
    elif name in _INTERPRETERS and not words[1].startswith("-"):
        yield from _missing_files(words[1:2])
    elif words[0].startswith(_OUR_FOLDERS):
        yield from _missing_files(words[:1])
    elif name not in FOREIGN and not words[0].startswith(".venv/bin/"):
        yield f"unknown program {words[0]!r}"
    yield from _missing_files(word for word in words[1:] if word.startswith(_OUR_FOLDERS))


def _missing_files(paths: list[str] | Iterator[str]) -> Iterator[str]:
    for path in paths:
        if not (ROOT / path).exists():
            yield f"there is no {path}"


def wrong_usage(arguments: list[str]) -> Iterator[str]:
    """Yields what click would say about ``distckpt ARGUMENTS``; nothing is run or looked at."""
    command: click.Command = main
    context = click.Context(main, info_name="distckpt")
    try:
        while isinstance(command, click.Group) and arguments:
            if arguments[0] in ("--help", "-h", "--version"):
                return
            found = command.get_command(context, arguments[0])
            if found is None:
                yield f"distckpt has no command {arguments[0]!r}"
                return
            context = click.Context(
                found, info_name=arguments[0], parent=context, **found.context_settings
            )
            command, arguments = found, arguments[1:]
        values, _, _ = command.make_parser(context).parse_args(list(arguments))
        yield from _bad_values(command, context, values)
    except click.ClickException as error:
        yield f"{context.command_path}: {error.format_message()}"


def _bad_values(
    command: click.Command, context: click.Context, values: dict[str, object]
) -> Iterator[str]:
    """Yields complaints about values, but for paths, which need not be there."""
    for parameter in command.params:
        value = values.get(str(parameter.name))
        given = isinstance(value, (str, list, tuple)) and len(value) > 0
        if isinstance(parameter, click.Argument) and parameter.required and not given:
            yield f"{context.command_path}: {parameter.name} is missing"
        judged = not isinstance(parameter.type, (click.Path, click.File))
        if judged and given:
            try:
                parameter.type_cast_value(context, value)
            except click.ClickException as error:
                yield f"{context.command_path}: {error.format_message()}"


def wrong_words(code: str) -> Iterator[str]:
    """Yields what is wrong with a command within a sentence, which need not be complete."""
    if _MARKS_OF_PLACES.search(code):
        return
    try:
        words = shlex.split(code)[1:]
    except ValueError:
        return
    command: click.Command = main
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.commands.get(words.pop(0))
        if found is None:
            yield f"no such command: {code}"
            return
        command = found
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "-h"}
    for word in words:
        if word == "--":
            return
        if word.startswith("--") and word.partition("=")[0] not in known:
            yield f"no such option: {word} of {code}"
