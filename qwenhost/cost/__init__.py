"""Money: API bills, self-hosting bills, where they cross, and how sure that is; pure."""

from qwenhost.cost.advice import Advice, Needs, advise
from qwenhost.cost.api_cost import Breakdown, TraceCost, UsageTable, api_cost, trace_cost
from qwenhost.cost.api_lines import ApiTerms, price_request, reference_tokenizer
from qwenhost.cost.break_even import BreakEven, break_even
from qwenhost.cost.capacity import capacity
from qwenhost.cost.compare import compare
from qwenhost.cost.comparison import ApiLine, Comparison, comparison_to_json, load_comparison
from qwenhost.cost.extras import Extras, with_images
from qwenhost.cost.frame import CompareOptions
from qwenhost.cost.freshness import StaleFact, max_age_days
from qwenhost.cost.gpu_hour import Ownership, owned_usd_per_gpu_hour
from qwenhost.cost.history import best_run
from qwenhost.cost.quality import Success
from qwenhost.cost.quote import Quote, quote_usage, quote_workload
from qwenhost.cost.scenario import Scenario
from qwenhost.cost.self_host_cost import SelfHost
from qwenhost.cost.trace import Trace, load_trace, load_usage
from qwenhost.cost.trace_workload import requests_per_day, workload_of_trace
from qwenhost.cost.usage import Usage, workload_usage

__all__ = [
    "Advice",
    "ApiLine",
    "ApiTerms",
    "BreakEven",
    "Breakdown",
    "CompareOptions",
    "Comparison",
    "Extras",
    "Needs",
    "Ownership",
    "Quote",
    "Scenario",
    "SelfHost",
    "StaleFact",
    "Success",
    "Trace",
    "TraceCost",
    "Usage",
    "UsageTable",
    "advise",
    "api_cost",
    "best_run",
    "break_even",
    "capacity",
    "compare",
    "comparison_to_json",
    "load_comparison",
    "load_trace",
    "load_usage",
    "max_age_days",
    "owned_usd_per_gpu_hour",
    "price_request",
    "quote_usage",
    "quote_workload",
    "reference_tokenizer",
    "requests_per_day",
    "trace_cost",
    "with_images",
    "workload_of_trace",
    "workload_usage",
]
