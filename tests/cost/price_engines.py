"""Price usages with genai-prices and litellm, in a process of its own: JSON in on stdin, JSON out on stdout.

litellm fetches its price list at import unless told to use the one it ships.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from typing import Any

MODEL = "claude-sonnet-4-6"


def genai_usd(row: dict[str, Any], day: dt.datetime) -> float:
    """Tokens and searches at the standard tier; it models neither batch nor residency."""
    from genai_prices import Usage, calc_price

    written = row["write_5m"] + row["write_1h"]
    usage = Usage(
        input_tokens=row["plain"] + written + row["read"],
        cache_write_tokens=written,
        cache_write_5m_tokens=row["write_5m"],
        cache_write_1h_tokens=row["write_1h"],
        cache_read_tokens=row["read"],
        output_tokens=row["output"],
    )
    found = calc_price(usage, model_ref=MODEL, provider_id="anthropic", genai_request_timestamp=day)
    return float(found.total_price)


def litellm_usd(row: dict[str, Any]) -> float:
    """Today's rates with batch and residency; it has no dates."""
    from litellm import cost_calculator
    from litellm.llms.anthropic.cost_calculation import cost_per_token
    from litellm.types.utils import CacheCreationTokenDetails, PromptTokensDetailsWrapper, Usage

    written = row["write_5m"] + row["write_1h"]
    details = PromptTokensDetailsWrapper(
        cached_tokens=row["read"],
        cache_creation_tokens=written,
        cache_creation_token_details=CacheCreationTokenDetails(
            ephemeral_5m_input_tokens=row["write_5m"], ephemeral_1h_input_tokens=row["write_1h"]
        ),
    )
    usage = Usage(
        prompt_tokens=row["plain"] + written + row["read"],
        completion_tokens=row["output"],
        prompt_tokens_details=details,
        cache_creation_input_tokens=written,
        cache_read_input_tokens=row["read"],
    )
    if row["geo"]:
        usage.inference_geo = row["geo"]
    if row["batch"]:
        spent = cost_calculator.batch_cost_calculator(
            usage=usage, model=MODEL, custom_llm_provider="anthropic"
        )
    else:
        spent = cost_per_token(model=MODEL, usage=usage)
    return float(sum(spent))


def main() -> None:
    """Answer with each engine's figures, None where it does not model the row."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    asked = json.load(sys.stdin)
    day = dt.datetime.fromisoformat(asked["day"])
    json.dump(
        {
            "genai": [None if row["batch"] or row["geo"] else genai_usd(row, day) for row in asked["rows"]],
            "litellm": [litellm_usd(row) for row in asked["rows"]],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
