"""Sessions: a turn is sent when the one before has been answered and its user has thought.

The model's own answers go back to it as history, without their thinking, so that each prompt begins
with the one before. Calls of tools are answered with results.
"""

from __future__ import annotations

from itertools import count
from random import Random
from typing import TYPE_CHECKING

from qwenhost.probe.answers import read_answer
from qwenhost.probe.content import Prompt
from qwenhost.probe.course import Follow, Label

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from qwenhost.measurements import RequestRecord
    from qwenhost.probe.bodies import Message
    from qwenhost.probe.endpoints import Endpoint
    from qwenhost.probe.exchange import Exchange
    from qwenhost.probe.own_prompts import Turn
    from qwenhost.probe.requests import Encoder
    from qwenhost.probe.spread import Spread
    from qwenhost.probe.talk import Talk


class SessionCourse:
    """Sessions one after the other, without end.

    A request's index is session * most_turns + turn.

    Args:
        talk: what users say.
        most_turns: of any session.
        encode: makes the requests.
        spread: over several URLs.
        endpoint: dialect of the answers.
        think_s: mean of the exponential time between an answer and the next turn.
        seed: of the thinking times.
    """

    total: int | None = None
    due_s: Sequence[float] | None = None

    def __init__(
        self,
        talk: Talk,
        *,
        most_turns: int,
        encode: Encoder,
        spread: Spread,
        endpoint: Endpoint,
        think_s: float,
        seed: int,
    ) -> None:
        self.starts_share = 1 / talk.mean_turns
        self._talk, self._most, self._encode, self._spread = talk, most_turns, encode, spread
        self._endpoint: Endpoint = endpoint
        self._think_s, self._seed = think_s, seed
        self._turns: dict[int, Sequence[Turn]] = {}
        self._history: dict[int, list[Message]] = {}

    def starts(self, done: Collection[int] = ()) -> Iterator[int | None]:
        """The first turn of each session that is not done."""
        for session in count():
            turns = range(session * self._most, session * self._most + len(self._turns_of(session)))
            yield next((index for index in turns if index not in done), None)

    def requests_in(self, starts: Sequence[int]) -> int:
        """All turns from those on."""
        return sum(len(self._turns_of(index // self._most)) - index % self._most for index in starts)

    def payload(self, index: int) -> bytes:
        """The conversation so far."""
        session, turn = divmod(index, self._most)
        turns = self._turns_of(session)
        self._turns[session] = turns
        messages = self._history.setdefault(session, self._rebuilt(session, turn))
        prompt = Prompt(text="", messages=messages, max_tokens=turns[turn].max_tokens)
        return self._encode(prompt, index, replica=self._spread.replica(index, session))

    def label(self, index: int) -> Label:
        """Session, turn and URL."""
        session, turn = divmod(index, self._most)
        return Label(session=session, turn=turn, replica=self._spread.replica(index, session))

    def follows(self, index: int) -> bool:
        """Until the last turn."""
        session, turn = divmod(index, self._most)
        return turn + 1 < len(self._turns_of(session))

    def follow(self, exchange: Exchange) -> Follow:
        """The next turn, with this answer in its history."""
        session, turn = divmod(exchange.index, self._most)
        said = read_answer(self._endpoint, exchange).message
        asked = self._turns_of(session)[turn + 1].text
        calls = said.get("tool_calls", ())
        results = [{"role": "tool", "tool_call_id": call["id"], "content": asked} for call in calls]
        self._history[session] += [said, *(results or [{"role": "user", "content": asked}])]
        return Follow(exchange.index + 1, self._thinks_for(exchange.index))

    def admits(self, index: int) -> bool:
        """Always."""
        del index
        return True

    def note(self, record: RequestRecord) -> None:
        """Forget a session that is over."""
        if not record.ok or not self.follows(record.index):
            session = record.index // self._most
            self._history.pop(session, None)
            self._turns.pop(session, None)

    def _turns_of(self, session: int) -> Sequence[Turn]:
        return self._turns.get(session) or self._talk.turns(session)

    def _rebuilt(self, session: int, turn: int) -> list[Message]:
        """History up to a turn whose answers are not known any more."""
        messages: list[Message] = []
        turns = self._turns_of(session)
        for number, past in enumerate(turns[:turn]):
            answer = self._talk.stand_in(session, number, past.max_tokens)
            messages += [{"role": "user", "content": past.text}, {"role": "assistant", "content": answer}]
        return [*messages, {"role": "user", "content": turns[turn].text}]

    def _thinks_for(self, index: int) -> float:
        random_ = Random(f"{self._seed}/think/{index}")  # noqa: S311 - chance, not secrets
        return random_.expovariate(1 / self._think_s) if self._think_s else 0.0


class TalkPrompts:
    """What opens each session, alone: for warm-up."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def __getitem__(self, index: int) -> Prompt:
        """The first turn."""
        first = self._talk.turns(index)[0]
        return Prompt(text=first.text, max_tokens=first.max_tokens)
