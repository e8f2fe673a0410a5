"""Mistakes in a command line itself: an unknown option or command, a missing argument, a value of a wrong type."""

from __future__ import annotations

from typing import Any

import typer

from harness.base.errors import one_line, unknown_name

# typer exports the errors of parameters only; every error of a command line is of the class above them.
UsageError: Any = typer.BadParameter.__mro__[1]


def is_help(error: Any) -> bool:
    """Return whether the error is the help of a command that was called without arguments."""
    return type(error).__name__ == "NoArgsIsHelpError"


def explained(error: Any) -> str:
    """Describe an error of the command line in one line: the value, the valid ones, and the command's help."""
    command = error.ctx.command_path if error.ctx is not None else "ood-harness COMMAND"
    return f"{_fault(error).rstrip('.')}. See {command} --help"


def _fault(error: Any) -> str:
    context = error.ctx
    if type(error).__name__ == "NoSuchOption" and context is not None:
        valid = [option for parameter in context.command.params for option in parameter.opts]
        options = [option for option in valid if option.startswith("-")]
        return str(unknown_name("option", error.option_name, [*options, "--help"], valid_label="Valid"))
    message = _message(error)
    commands = getattr(context.command, "commands", None) if context is not None else None
    if commands and message.startswith("No such command"):
        return f"{message} Valid: {', '.join(commands)}"
    text = getattr(getattr(error, "param", None), "help", None)
    return f"{message} {text}" if text and message.startswith("Missing") else message


def _message(error: Any) -> str:
    """Return the error's own message, with the value that it refuses."""
    message = one_line(Exception(error.format_message())).replace("Value error, ", "")
    message = message.partition(", unable to parse")[0]
    faults: list[Any] = getattr(error.__cause__, "errors", list)()  # of pydantic, by which typer reads values
    given = faults[0].get("input") if faults else None
    is_shown = given is None or repr(given) in message
    return message if is_shown else f"{message.rstrip('.')}, not {given!r}."
