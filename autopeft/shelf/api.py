"""The HTTP interface of a shelf: `/predict`, `/winners`, `/health`, and what OpenAI's clients ask of a server."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from autopeft.common.exceptions import AutopeftError
from autopeft.shelf.asked import ChatCompletion, Completion, Rows, is_writing
from autopeft.shelf.batcher import Batcher
from autopeft.shelf.guard import Guard, body_of
from autopeft.shelf.refusal import on_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.requests import Request

    from autopeft.shelf.shelf import Shelf
    from autopeft.shelf.texts import Text

WAIT = 0.002
"""Seconds to wait for more requests before a batch of one is answered."""

ONLY_ONE = "no other winner here can share a pass with it"
"""Why a winner's rows run alone, where nothing about it is in the way."""

MOST = 64
"""Rows of a batch."""


class Api:
    """Answers requests about winners.

    Args:
        shelf: the winners.
        wait: seconds to wait for more requests.
        most: rows of a batch.
    """

    def __init__(self, shelf: Shelf, wait: float = WAIT, most: int = MOST) -> None:
        self._shelf = shelf
        self._batcher = Batcher(shelf, wait, most)
        self._started = int(time.time())  # noqa: TID251  # a date

    def app(self, names: Sequence[str] = ("localhost",), *, loopback: bool = True) -> Starlette:
        """The application; see `Guard` for its arguments."""
        routes = [
            Route("/health", self.health),
            Route("/winners", self.winners),
            Route("/predict", self.predict, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat_completions, methods=["POST"]),
        ]
        guard = Middleware(Guard, names=frozenset(names), loopback=loopback)
        handlers: dict[Any, Any] = dict.fromkeys((AutopeftError, HTTPException, Exception), on_error)
        return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers, lifespan=self._answering)

    async def health(self, request: Request) -> JSONResponse:
        """Whether the server runs, and how many winners it has."""
        return JSONResponse({"status": "ok", "winners": len(self._shelf)})

    async def winners(self, request: Request) -> JSONResponse:
        """What each winner answers, and how its rows run."""
        return JSONResponse({"winners": [self._described(name) for name in self._shelf]})

    async def predict(self, request: Request) -> JSONResponse:
        """The answers of a winner to rows, as `autopeft predict --json` gives them."""
        asked = Rows.read(await body_of(request))
        question = await self._batcher.ask(asked.question(self._shelf))
        assert question.answers is not None
        answers = self._shelf.told(asked.winner, question.answers)
        return JSONResponse({"winner": asked.winner, "answers": answers, "notes": question.notes})

    async def models(self, request: Request) -> JSONResponse:
        """The winners that write texts."""
        names = [name for name, winner in self._shelf.winners.items() if is_writing(winner)]
        told = [{"id": name, "object": "model", "created": self._started, "owned_by": "autopeft"} for name in names]
        return JSONResponse({"object": "list", "data": told})

    async def completions(self, request: Request) -> JSONResponse:
        """A text for each prompt."""
        asked = Completion.read(await body_of(request))
        texts = await self._batcher.write(asked.prompts(self._shelf))
        choices = [{"text": one.text, "logprobs": None} for one in texts]
        return JSONResponse(_completion(asked.model, "text_completion", "cmpl", texts, choices))

    async def chat_completions(self, request: Request) -> JSONResponse:
        """The answer to a conversation."""
        asked = ChatCompletion.read(await body_of(request))
        texts = await self._batcher.write(asked.prompts(self._shelf))
        choices = [{"message": {"role": "assistant", "content": one.text}, "logprobs": None} for one in texts]
        return JSONResponse(_completion(asked.model, "chat.completion", "chatcmpl", texts, choices))

    def _described(self, name: str) -> dict[str, Any]:
        winner = self._shelf[name]
        return {
            "name": name,
            "task": winner.card.task,
            "columns": [*winner.input_names.values()],
            "labels": [*winner.card.labels],
            "method": winner.card.method,
            "params": dict(winner.card.params),
            "base_model": winner.card.base_model,
            "runs": "with others" if self._shelf.shares(name) else "alone",
            "reason": self._shelf.turns.get(name, "" if self._shelf.shares(name) else ONLY_ONE),
        }

    @asynccontextmanager
    async def _answering(self, app: Starlette) -> AsyncIterator[None]:
        """Answer batches while the server runs."""
        task = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _completion(
    model: str, kind: str, prefix: str, texts: Sequence[Text], choices: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Texts in the form of OpenAI's API."""
    read, written = sum(one.prompt_tokens for one in texts), sum(one.tokens for one in texts)
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),  # noqa: TID251  # a date
        "model": model,
        "choices": [
            {"index": index, **choice, "finish_reason": "stop" if text.ended else "length"}
            for index, (choice, text) in enumerate(zip(choices, texts, strict=True))
        ],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }
