"""A chat on a terminal, or line by line on a pipe."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from autopeft.common.exceptions import UserInputError, quoted
from autopeft.common.streams import for_stdout

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.winner.chat import Answer, Chat

EXIT, RESET, UNDO, HELP = "/exit", "/reset", "/undo", "/help"
USAGE = (
    f"{RESET} starts again, {UNDO} takes the last turn back, {EXIT} or Ctrl-D ends; Ctrl-C stops an answer. Anything "
    "else is a message."
)
PROMPT = "> "


class ChatLoop:
    """Reads messages and prints what is answered, with nothing in it that a terminal would obey.

    Args:
        chat: the conversation.
        say: told in a sentence what is not an answer.
        base: whether the base model answers too.
    """

    def __init__(self, chat: Chat, say: Callable[[str], None], *, base: bool) -> None:
        self._chat, self._say, self._base = chat, say, base
        self._piped = not (sys.stdin.isatty() and sys.stdout.isatty())

    def run(self) -> None:
        """Until the end of what is read, or `EXIT`.

        Raises:
            UserInputError: a message on a pipe cannot be put to the model.
            KeyboardInterrupt: on a pipe.
        """
        if not self._piped:
            with suppress(ImportError):  # lets lines be edited and brings earlier ones back; not on every system
                import readline  # noqa: F401
            self._say(USAGE)
        while True:
            try:
                line = self._read()
                if line is None or line.strip() == EXIT:
                    return
                self._take(line)
            except KeyboardInterrupt:
                if self._piped:
                    raise
                sys.stdout.write("\n")
                self._say(f"{EXIT} or Ctrl-D ends.")
            except UserInputError as error:
                if self._piped:
                    raise
                self._say(str(error))

    def _read(self) -> str | None:
        """The next line; None at the end."""
        try:
            if self._piped:
                line = sys.stdin.readline()
                return line.removesuffix("\n").removeprefix("\ufeff") if line else None
            return input(PROMPT)
        except EOFError:
            sys.stdout.write("\n")
            return None
        except UnicodeDecodeError as error:
            raise UserInputError(f"a message must be in {error.encoding}, but is not: {error.reason}.") from None

    def _take(self, line: str) -> None:
        """A command or a message; an empty line is neither."""
        said = line.strip()
        if said == RESET:
            self._chat.reset()
            self._say("A new conversation.")
        elif said == UNDO:
            turn = self._chat.undo()
            self._say(f"Took back {quoted(turn.said)} and its answer." if turn else "There is no turn to take back.")
        elif said == HELP:
            self._say(USAGE)
        elif said:
            self._chat.ask(line)
            answer = self._show("winner")
            if self._base and not answer.stopped:
                self._show("base model", base=True)
            self._chat.keep(answer)

    def _show(self, name: str, *, base: bool = False) -> Answer:
        """Print an answer as it is written."""
        if self._base:
            sys.stdout.write(f"{name}: ")
        answer = self._chat.answer(_tell, base=base)
        _tell("\n")
        if answer.stopped and self._piped:
            raise KeyboardInterrupt
        return answer


def _tell(text: str) -> None:
    sys.stdout.write(for_stdout(text))
    sys.stdout.flush()
