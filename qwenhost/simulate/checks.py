"""What vLLM refuses in a request's fields, in its words and order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qwenhost.simulate.requests import (
    ChatAsk,
    CompletionAsk,
    CountAsk,
    MessagesAsk,
    RequestError,
    ResponsesAsk,
    invalid,
)

if TYPE_CHECKING:
    from qwenhost.simulate.requests import Ask

MAX_STOP_STRINGS: Final = 4
"""``VLLM_MAX_STOP_STRINGS`` of vLLM 0.33."""
MAX_TEMPERATURE: Final = 2.0
MIN_THINKING_BUDGET: Final = 1024
NAMED_TOOL: Final = '{"type": "function", "function": {"name": "my_function"}}'


def check(ask: Ask) -> None:
    """Refuse what vLLM's request models and sampling parameters refuse, and what is not simulated.

    Raises:
        RequestError: 400 with the field at fault.
    """
    _check_stops(ask)
    if isinstance(ask, ChatAsk | CompletionAsk) and ask.stream_options and not ask.stream:
        raise invalid("Stream options can only be defined when `stream=True`.", "stream_options")
    if isinstance(ask, ChatAsk):
        _check_chat(ask)
    if isinstance(ask, CompletionAsk):
        _check_completion(ask)
    if isinstance(ask, CountAsk):
        _check_messages(ask)
    if isinstance(ask, ResponsesAsk):
        _check_responses(ask)
    _check_sampling(ask)


def _check_stops(ask: Ask) -> None:
    for name, given in (("stop", ask.stop), ("stop_sequences", ask.stop_sequences)):
        if isinstance(given, list) and len(given) > MAX_STOP_STRINGS:
            message = f"List should have at most {MAX_STOP_STRINGS} items after validation, not {len(given)}"
            raise invalid(message, f"body.{name}")
    if any(not text for text in ask.stops):
        raise RequestError(400, "stop cannot contain an empty string.")


def _check_chat(ask: ChatAsk) -> None:
    if ask.top_logprobs and not ask.logprobs:
        raise invalid("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    if ask.logprobs:
        raise RequestError(400, "logprobs are not simulated", param="logprobs")
    if ask.tools == []:
        message = (
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely."
        )
        raise invalid(message, "tools")
    choice = ask.tool_choice
    if choice is None or choice == "none":
        return
    if not ask.tools:
        raise invalid("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, dict):
        _check_named_tool(choice, ask.tools)
    elif choice not in ("auto", "required"):
        allowed = 'Only named tools, "none", "auto" or "required" are supported.'
        raise invalid(f"Invalid value for `tool_choice`: {choice}! {allowed}", "tool_choice")


def _check_named_tool(choice: dict[str, Any], tools: list[dict[str, Any]]) -> None:
    function = choice.get("function")
    if not isinstance(function, dict) or "name" not in function:
        message = f"Expected field `name` in `function` in `tool_choice`! Correct usage: `{NAMED_TOOL}`"
        raise invalid(message, "tool_choice.function.name")
    names = [(tool.get("function") or {}).get("name") for tool in tools]
    if function["name"] not in names:
        message = "The tool specified in `tool_choice` does not match any of the specified `tools`"
        raise invalid(message, "tool_choice")


def _check_completion(ask: CompletionAsk) -> None:
    if ask.prompt_ == "":
        raise invalid("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if ask.logprobs is not None:
        raise RequestError(400, "logprobs are not simulated", param="logprobs")


def _check_messages(ask: CountAsk) -> None:
    if not ask.model:
        raise invalid("Value error, Model is required", "body.model")
    choice = ask.tool_choice or {}
    if choice.get("type") == "tool" and not choice.get("name"):
        raise invalid("Value error, tool_choice.name is required when type is 'tool'", "body.tool_choice")
    thinking = ask.thinking or {"type": "disabled"}
    kind, budget = thinking.get("type"), thinking.get("budget_tokens")
    if kind not in ("enabled", "disabled", "adaptive"):
        message = f"Input tag '{kind}' found using 'type' does not match any of the expected tags"
        raise invalid(f"{message}: 'enabled', 'disabled', 'adaptive'", "body.thinking")
    if kind == "enabled" and not (isinstance(budget, int) and budget >= MIN_THINKING_BUDGET):
        message = f"Input should be greater than or equal to {MIN_THINKING_BUDGET}"
        raise invalid(message, "body.thinking.enabled.budget_tokens")
    if not isinstance(ask, MessagesAsk):
        return
    if ask.max_tokens < 1:
        raise invalid("Value error, max_tokens must be positive", "body.max_tokens")
    if kind == "enabled" and isinstance(budget, int) and budget >= ask.max_tokens:
        raise invalid("Value error, thinking.budget_tokens must be less than max_tokens", "body")


def _check_responses(ask: ResponsesAsk) -> None:
    if not ask.tools and ask.tool_choice == "required":
        message = "Tool choice 'required' must be specified with 'tools' parameter."
        raise invalid(message, "tool_choice")
    if ask.previous_response_id is not None:
        message = f"Response with id '{ask.previous_response_id}' not found."
        raise RequestError(404, message, "invalid_request_error", param="response_id")


def _check_sampling(ask: Ask) -> None:
    """What vLLM's ``SamplingParams`` refuse."""
    limit, least = ask.output_limit, ask.min_tokens or 0
    if ask.n is not None and ask.n < 1:
        raise RequestError(400, f"n must be at least 1, got {ask.n}.")
    if (ask.n or 1) > 1:
        raise RequestError(400, "n above 1 is not simulated", param="n")
    if ask.temperature is not None and ask.temperature < 0:
        message = f"temperature must be non-negative, got {ask.temperature}."
        raise RequestError(400, message, param="temperature")
    if ask.temperature is not None and ask.temperature > MAX_TEMPERATURE:
        message = f"temperature must be in [0, 2], got {ask.temperature}."
        raise RequestError(400, message, param="temperature")
    if ask.top_p is not None and not 0 < ask.top_p <= 1:
        raise RequestError(400, f"top_p must be in (0, 1], got {ask.top_p}.", param="top_p")
    if ask.top_k is not None and ask.top_k < -1:
        raise RequestError(400, f"top_k must be 0 (disable), or at least 1, got {ask.top_k}.")
    if limit is not None and limit < 1:
        raise RequestError(400, f"max_tokens must be at least 1, got {limit}.", param="max_tokens")
    if least < 0:
        raise RequestError(400, f"min_tokens must be greater than or equal to 0, got {least}.")
    if limit is not None and least > limit:
        message = f"min_tokens must be less than or equal to max_tokens={limit}, got {least}."
        raise RequestError(400, message)
