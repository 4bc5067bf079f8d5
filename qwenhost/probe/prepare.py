"""Before a run: who answers, how texts become tokens, which requests follow from that, what they may cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.probe.bodies import THINKING_BUDGET
from qwenhost.probe.content import SyntheticPrompts, TextPool, TokenFit
from qwenhost.probe.course import Capped, Course, Prompts, Singles
from qwenhost.probe.identify import Identity, Sampler, calibrate, identify, tokens_of_images
from qwenhost.probe.own_prompts import FilePrompts
from qwenhost.probe.replay import ReplayCourse, TracePrompts, read_replay
from qwenhost.probe.requests import Encoder
from qwenhost.probe.sessions import SessionCourse, TalkPrompts
from qwenhost.probe.spending import Cost, Purse, cost_beforehand, require_within, worst_usd
from qwenhost.probe.spread import Spread
from qwenhost.probe.talk import FileTalk, SessionSizes, SyntheticTalk, Talk, session_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.probe.clock import StampingSelector
    from qwenhost.probe.config import ProbeConfig
    from qwenhost.probe.course import Earlier
    from qwenhost.probe.wire import Target

_BYTES_PER_TOKEN = 4.0


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a run's requests, as far as they are known beforehand."""

    input: float
    output: float
    most_input: float
    most_output: float


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is ready to begin."""

    identity: Identity
    fit: TokenFit | None
    """None where the user's own prompts are sent."""
    exact: bool
    seed: int
    course: Course
    encode: Encoder
    warm: Prompts
    """Prompts for warm-up, under negative indices."""
    about: str
    """How the prompts are made."""
    notes: tuple[str, ...] = ()
    image_tokens: float | None = None
    """Prompt tokens that the pictures of a request make, by the server's own count."""
    cost: Cost | None = None
    purse: Purse | None = None

    @property
    def worst_request_usd(self) -> float | None:
        """What one request may cost, where they are billed."""
        return None if self.purse is None else self.purse.worst_request_usd


class _Load(msgspec.Struct, frozen=True, kw_only=True):
    course: Course
    warm: Prompts
    sizes: Sizes
    about: str
    notes: tuple[str, ...] = ()


async def prepare(
    config: ProbeConfig,
    targets: Sequence[Target],
    selector: StampingSelector,
    *,
    seed: int,
    earlier: Earlier,
    fit: TokenFit | None = None,
) -> Prepared:
    """Find out what has to be known and make the run's course.

    Args:
        config: what is asked for.
        targets: the URLs; all must serve the same model.
        selector: the running loop's.
        seed: of everything random.
        earlier: what a resumed run had done.
        fit: of a resumed run, whose prompts must come out the same; None measures it.

    Raises:
        BadInputError: it cannot be run, or could cost more than its cap.
        UnavailableError: an endpoint does not answer.
    """
    headers = config.headers
    identity = await identify(targets[0], selector, headers, model=config.model, anthropic=config.anthropic)
    for further in targets[1:]:
        await identify(further, selector, headers, model=identity.server.model)
    sampler = Sampler(
        target=targets[0], selector=selector, headers=headers, endpoint=config.endpoint,
        timeout_s=config.timeout_s, anthropic=config.anthropic,
    )  # fmt: skip
    exact = identity.speaks_vllm if config.exact_output is None else config.exact_output
    encode = Encoder(
        config, targets, model=identity.server.model, exact=exact, seed=seed, cache=_caching(config)
    )
    pool = TextPool(seed)
    if config.prompts is None and fit is None:
        fit = await calibrate(
            sampler, pool, model=identity.server.model, input_tokens=config.input_tokens.mean, seed=seed,
            thinking=config.thinking,
        )  # fmt: skip
    load = _Loads(config, identity.max_model_len, encode, fit or TokenFit(), seed=seed, pool=pool).load()
    shown = None
    if config.image_count:
        shown = await tokens_of_images(sampler, encode.ask(load.warm[-1], -1, at_most=1))
    cost, purse = _budgeted(config, load, earlier, image_tokens=shown or 0.0)
    return Prepared(
        identity=identity, fit=fit, exact=exact, seed=seed, encode=encode, warm=load.warm,
        course=load.course if purse is None else Capped(load.course, purse), about=load.about,
        notes=load.notes, image_tokens=shown, cost=cost, purse=purse,
    )  # fmt: skip


def _caching(config: ProbeConfig) -> bool:
    """Claude's cache must be asked for; where prompts share nothing that would only cost more."""
    return config.anthropic and (config.turns > 1 or bool(config.prefix_hit))


class _Loads:
    """The four kinds of content as courses."""

    def __init__(
        self,
        config: ProbeConfig,
        context: int | None,
        encode: Encoder,
        fit: TokenFit,
        *,
        seed: int,
        pool: TextPool,
    ) -> None:
        self._config, self._context, self._encode = config, context, encode
        self._fit, self._seed, self._pool = fit, seed, pool
        sticky = config.spread != "round-robin"
        self._spread = Spread(urls=len(config.urls), sticky=sticky)

    def load(self) -> _Load:
        if self._config.trace is not None:
            return self._replayed()
        if self._config.turns > 1:
            return self._in_sessions()
        return self._single()

    def _single(self) -> _Load:
        config = self._config
        prompts: Prompts
        if config.prompts is not None:
            prompts = own = self._own_prompts()
            sizes, about = _sizes_of_file(own, config), f"lines of {config.prompts}{self._marked()}"
        else:
            self._require_room(config.input_tokens.mean + config.output_tokens.mean)
            prompts = synthetic = self._synthetic()
            sizes = _sizes_of(synthetic, config)
            about = self._synthetic_about(f"{config.distribution} length")
        course = Singles(prompts, self._encode, self._spread)
        return _Load(course=course, warm=prompts, sizes=sizes, about=about)

    def _in_sessions(self) -> _Load:
        config = self._config
        talk: Talk
        if config.prompts is not None:
            own = self._own_prompts()
            talk, sizes = FileTalk(own, most_turns=config.turns), _sizes_of_file(own, config)
            about = f"conversations of {config.prompts}, {config.turns} turns at most{self._marked()}"
        else:
            planned = session_sizes(
                config.input_tokens.mean, config.output_tokens.mean, config.turns, config.prefix_hit
            )
            longest = planned.first + (config.turns - 1) * planned.growth
            self._require_room(longest + config.output_tokens.mean)
            talk = self._synthetic_talk(planned)
            out = config.output_tokens.mean
            sizes = Sizes(input=config.input_tokens.mean, output=out, most_input=longest, most_output=out)
            about = self._synthetic_about(
                f"{config.turns} turns, first prompt {planned.first:,.0f} tokens, then "
                f"{planned.growth:,.0f} more a turn, at most {planned.hit:.0%} of it seen before"
            )
        course = SessionCourse(
            talk, most_turns=config.turns, encode=self._encode, spread=self._spread,
            endpoint=config.endpoint, think_s=config.think_time_s, seed=self._seed,
        )  # fmt: skip
        return _Load(course=course, warm=TalkPrompts(talk), sizes=sizes, about=about)

    def _replayed(self) -> _Load:
        config = self._config
        assert config.trace is not None  # noqa: S101 - the caller looked
        replay = read_replay(
            config.trace, scale=config.trace_scale, most=config.requests,
            until_s=config.duration_s if config.timed_by_trace else None, context=self._context,
        )  # fmt: skip
        prompts = TracePrompts(
            replay.requests, fit=self._fit, seed=self._seed, pool=self._pool, unique=config.unique_prefix
        )
        course = ReplayCourse(
            replay.requests, prompts, encode=self._encode, spread=self._spread,
            timed=config.timed_by_trace, think_s=config.think_time_s,
        )  # fmt: skip
        sizes = Sizes(
            input=replay.mean_input_tokens, output=replay.mean_output_tokens,
            most_input=max(request.input_tokens for request in replay.requests),
            most_output=max(request.output_tokens for request in replay.requests),
        )  # fmt: skip
        left = f"{replay.left_out} requests of the trace exceed the server's context and were left out"
        kept = f" at {config.trace_scale:g} times its speed" if config.timed_by_trace else ", sizes only"
        about = self._synthetic_about(f"sizes of {config.trace}{kept}")
        notes = (left,) if replay.left_out else ()
        return _Load(course=course, warm=prompts, sizes=sizes, about=about, notes=notes)

    def _own_prompts(self) -> FilePrompts:
        config = self._config
        assert config.prompts is not None  # noqa: S101 - the callers looked
        seed = self._seed if config.unique_prefix else None
        return FilePrompts(config.prompts, max_tokens=round(config.output_tokens.mean), seed=seed)

    def _synthetic(self) -> SyntheticPrompts:
        config = self._config
        return SyntheticPrompts(
            input_tokens=config.input_tokens, output_tokens=config.output_tokens,
            distribution=config.distribution, prefix_hit=config.prefix_hit or 0.0,
            max_model_len=self._context, fit=self._fit, seed=self._seed, pool=self._pool,
            unique=config.unique_prefix,
        )  # fmt: skip

    def _synthetic_talk(self, sizes: SessionSizes) -> SyntheticTalk:
        config = self._config
        return SyntheticTalk(
            sizes, turns=config.turns, output_tokens=config.output_tokens.mean, fit=self._fit,
            seed=self._seed, pool=self._pool, unique=config.unique_prefix,
        )  # fmt: skip

    def _require_room(self, tokens: float) -> None:
        if self._context is not None and tokens > self._context:
            raise BadInputError(
                f"{tokens:,.0f} tokens a request, but the server's max_model_len is {self._context:,}",
                remedy="Lower --input-tokens or --output-tokens.",
            )

    def _synthetic_about(self, what: str) -> str:
        return f"synthetic, {what}; tokens per word {self._fit.basis}: {self._fit.source}{self._unmarked()}"

    def _marked(self) -> str:
        return ", opened by a mark of the run" if self._config.unique_prefix else ""

    def _unmarked(self) -> str:
        return "" if self._config.unique_prefix else "; the same in every run of the seed"


# --------------------------------------------------------------------------- money


def _sizes_of(prompts: SyntheticPrompts, config: ProbeConfig) -> Sizes:
    mean = Sizes(
        input=config.input_tokens.mean, output=config.output_tokens.mean,
        most_input=config.input_tokens.mean, most_output=config.output_tokens.mean,
    )  # fmt: skip
    if config.distribution == "fixed" or config.budget is None:
        return mean
    drawn = [prompts.sizes(index) for index in range(_most_requests(config))]
    return msgspec.structs.replace(
        mean, most_input=max(size[0] for size in drawn), most_output=max(size[1] for size in drawn)
    )


def _sizes_of_file(prompts: FilePrompts, config: ProbeConfig) -> Sizes:
    """A token is a byte at least: that bounds the longest; on average about four are taken."""
    lengths, answers = [], []
    for session in range(len(prompts.entries)):
        turns = prompts.turns(session, config.turns)
        answer = sum(turn.max_tokens for turn in turns)
        lengths.append(sum(len(turn.text.encode()) for turn in turns) + answer - turns[-1].max_tokens)
        answers.append(max(turn.max_tokens for turn in turns))
    return Sizes(
        input=sum(lengths) / len(lengths) / _BYTES_PER_TOKEN, output=sum(answers) / len(answers),
        most_input=max(lengths), most_output=max(answers),
    )  # fmt: skip


def _most_requests(config: ProbeConfig) -> int:
    """How many a run can send, warm-up included.

    Raises:
        BadInputError: there is no telling.
    """
    if config.requests is not None:
        return config.requests + config.warmup_requests
    if config.planned_requests is not None:
        return config.planned_requests + config.warmup_requests
    if config.rate is not None and config.planned_duration_s is not None:
        expected = max(config.rate, config.ramp_to or 0.0) * config.planned_duration_s
        return math.ceil(expected + 5 * math.sqrt(expected)) + config.warmup_requests
    raise BadInputError(
        "how many requests will be sent, and so what they cost, is not known", remedy="Give --requests."
    )


def _budgeted(
    config: ProbeConfig, load: _Load, earlier: Earlier, *, image_tokens: float
) -> tuple[Cost | None, Purse | None]:
    """What the run may cost, and the purse that sees to it."""
    budget = config.budget
    if budget is None:
        return None, None
    sizes, caching = load.sizes, _caching(config)
    thinking = THINKING_BUDGET if config.thinking else 0
    most_input, most_output = sizes.most_input + image_tokens, sizes.most_output + thinking
    per_request = worst_usd(budget.prices, most_input, most_output, caching=caching)
    spent = 0.0 if earlier.store is None else earlier.store.totals.bill.usd(budget.prices, per_request)
    requests = load.course.total or config.turns * math.ceil(_most_requests(config) / config.turns)
    cost = cost_beforehand(
        budget.prices, requests=requests - len(earlier.done), input_tokens=sizes.input + image_tokens,
        output_tokens=sizes.output + thinking, most_input=most_input, most_output=most_output,
        caching=caching,
    )  # fmt: skip
    already = Cost(
        expected_usd=cost.expected_usd + spent, worst_usd=cost.worst_usd + spent, requests=cost.requests
    )
    require_within(already, budget)
    return already, Purse(budget, per_request, spent + config.warmup_requests * per_request)
