"""The figures of the documentation, drawn from the planner's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qwenhost.errors import QwenhostError
from qwenhost.node import parse_gpus
from qwenhost.plan import Candidate, Pins, PlanRequest
from qwenhost.planner import make_plan
from qwenhost.planner.cache import CacheOptions, block_layout
from qwenhost.profiles import load_catalog
from qwenhost.report.svg import Canvas, Scale, bottom_axis
from qwenhost.units import GIB, KIB

if TYPE_CHECKING:
    from qwenhost.facts import Catalog

IMAGES = Path(__file__).parent.parent / "images"
MODEL = "Qwen3.5-122B-A10B"
STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.tick,.small{font-size:12px;fill:#57606a}"
    ".title{font-size:15px;font-weight:600}.paper{fill:#fff}.grid{stroke:#d8dee4;stroke-width:1}"
    ".a{fill:#0969da;stroke:none}.b{fill:#bf8700;stroke:none}.c{fill:#8250df;stroke:none}"
    ".d{fill:#1a7f37;stroke:none}.e{fill:#afb8c1;stroke:none}.f{fill:#eaeef2;stroke:none}"
    ".la{stroke:#0969da;stroke-width:2.5;fill:none}.lb{stroke:#bf8700;stroke-width:2.5;fill:none;"
    "stroke-dasharray:6 4}</style>"
)


def canvas(title: str, width: int, height: int) -> Canvas:
    """White paper with a title, readable on dark pages too."""
    drawing = Canvas(width, height, [STYLE])
    drawing.rect((0, 0), (width, height), "paper")
    drawing.text((12, 24), title, "title")
    return drawing


def standing_alone(drawing: Canvas, name: str, title: str, words: str) -> str:
    """A file of its own needs its namespace."""
    return (
        drawing.markup(name, title, words).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        + "\n"
    )


def hybrid_cache(known: Catalog) -> str:
    """Cache of one request against its length: as it is, and as if all layers were attention."""
    architecture = known.architectures[MODEL]
    blocks = block_layout(architecture, CacheOptions(tensor_parallel_size=2))
    lengths = [0, *range(blocks.block_size, 262_144 + 1, blocks.block_size)]
    ours = [
        (n, 2 * (-(-n // blocks.block_size) + blocks.state_blocks) * blocks.block_bytes / GIB)
        for n in lengths
    ]
    factor = architecture.num_hidden_layers / architecture.num_full_attention_layers
    naive = [(n, 2 * n * blocks.bytes_per_token * factor / GIB) for n in lengths]
    title = "Cache that one running request holds, GiB over both GPUs (TP2, BF16 cache)"
    drawing = canvas(title, 720, 340)
    x, y = Scale(0, 262_144, 52, 560), Scale(0, naive[-1][1], 296, 44)
    bottom_axis(drawing, x, 296, top=44, words=lambda v: f"{v:,.0f}", wanted=6)
    for tick in y.ticks(5):
        drawing.line((52, y(tick)), (560, y(tick)), "grid")
        drawing.text((46, y(tick) + 4), f"{tick:g}", "tick", "end")
    drawing.path([(x(n), y(v)) for n, v in naive], "lb")
    drawing.path([(x(n), y(v)) for n, v in ours], "la")
    layers = architecture.num_hidden_layers, architecture.num_full_attention_layers
    drawing.text((568, y(naive[-1][1]) + 6), f"if all {layers[0]} layers grew:")
    drawing.text((568, y(naive[-1][1]) + 24), f"{naive[-1][1]:.1f} GiB")
    drawing.text((568, y(ours[-1][1]) - 12), f"{layers[1]} grow, the rest")
    drawing.text((568, y(ours[-1][1]) + 6), f"keep a state: {ours[-1][1]:.1f} GiB")
    drawing.text((306, 332), "tokens of the request", "small", "middle")
    return standing_alone(
        drawing, "hybrid", title, f"{ours[0][1]:.2f} GiB at the start, then a step a block."
    )


def planned(known: Catalog, gpus: str, pins: Pins) -> Candidate:
    """The chat plan with these choices pinned."""
    workload = known.workloads["chat"]
    request = PlanRequest(node=parse_gpus(gpus, known.gpus), workload=workload, slo=workload.slo, pins=pins)
    return make_plan(request, known).chosen


def tensor_parallel(known: Catalog) -> str:
    """What a token takes on all GPUs together, and the cache an engine of so many H200 has."""
    architecture = known.architectures[MODEL]
    title = "What a token of context takes on all GPUs of an engine together (BF16 cache)"
    drawing = canvas(title, 720, 246)
    rows = []
    for tp in (1, 2, 4, 8):
        layout = block_layout(architecture, CacheOptions(tensor_parallel_size=tp))
        chosen = planned(
            known, f"{tp}xH200",
            Pins(checkpoint="fp8", tensor_parallel_size=tp, data_parallel_size=1, kv_cache_dtype="auto",
                 num_speculative_tokens=0, decode_context_parallel_size=1, replicas=1),
        )  # fmt: skip
        rows.append((tp, tp * layout.bytes_per_token / KIB, chosen.kv_cache.tokens))
    x = Scale(0, max(kib for _, kib, _ in rows), 150, 470)
    for i, (tp, kib, tokens) in enumerate(rows):
        y = 50 + 44 * i
        heads = architecture.num_key_value_heads
        drawing.text((12, y + 13), f"TP{tp}")
        copies = "one copy" if tp <= heads else f"{tp // heads} copies"
        drawing.text((48, y + 13), copies, "small")
        for copy in range(max(1, tp // heads)):
            width = (x(kib) - 150) / max(1, tp // heads)
            drawing.rect((150 + copy * width, y), (width - 2, 20), "a" if copy == 0 else "e")
        drawing.text((x(kib) + 8, y + 14), f"{kib:g} KiB")
        drawing.text((560, y + 14), f"{tokens / 1e6:.1f} M tokens", "small")
    drawing.text((560, 40), "cache on H200, FP8", "small")
    drawing.text(
        (12, 232), "blue: what is needed; grey: copies, since there are 2 key-value heads to divide", "small"
    )
    return standing_alone(drawing, "tp", title, "; ".join(f"TP{tp} {kib:g} KiB" for tp, kib, _ in rows))


def max_num_seqs(known: Catalog) -> str:
    """Where the memory that may be used goes as the number of sequences grows."""
    title = "One of 2x H100 80GB, FP8, TP2: GiB that vLLM may use, by max_num_seqs"
    drawing = canvas(title, 720, 330)
    rows = []
    for count in (16, 64, 128, 256, 512, 1024):
        pins = Pins(checkpoint="fp8", tensor_parallel_size=2, max_num_seqs=count, max_model_len=8192,
                    max_num_batched_tokens=8192, num_speculative_tokens=0)  # fmt: skip
        try:
            rows.append((count, planned(known, "2xH100-80GB", pins)))
        except QwenhostError as error:
            rows.append((count, "vLLM would refuse: " + error.message.rpartition("needs ")[2].split(",")[0]))
    usable = max(c.memory_per_gpu.usable_bytes for _, c in rows if isinstance(c, Candidate)) / GIB
    x = Scale(0, usable, 70, 610)
    for i, (count, found) in enumerate(rows):
        y = 44 + 38 * i
        drawing.text((62, y + 16), f"{count:,}", "", "end")
        if isinstance(found, str):
            drawing.text((76, y + 16), found, "small")
            continue
        _bar(drawing, x, y, found, count)
    bottom_axis(drawing, x, 276, top=40, words=lambda v: f"{v:g}", wanted=6)
    legend = (
        (70, "a", "weights"), (150, "b", "activations, graphs, buffers"),
        (348, "c", "states of that many requests"), (552, "d", "room for their tokens"),
    )  # fmt: skip
    for left, css, words in legend:
        drawing.rect((left, 308), (12, 12), css)
        drawing.text((left + 17, 319), words, "small")
    return standing_alone(drawing, "seqs", title, "The states of the requests take the room of their tokens.")


def _bar(drawing: Canvas, x: Scale, y: float, found: Candidate, count: int) -> None:
    memory, cache = found.memory_per_gpu, found.kv_cache
    states = min(count * cache.state_bytes_per_sequence, memory.kv_cache_bytes)
    overhead = memory.activation_bytes + memory.cudagraph_bytes + memory.non_torch_bytes
    at = 0.0
    tokens = memory.kv_cache_bytes - states
    for css, size in (("a", memory.weights_bytes), ("b", overhead), ("c", states), ("d", tokens)):
        drawing.rect((x(at / GIB), y), (x(size / GIB) - x(0), 22), css)
        at += size
    drawing.text((x(at / GIB) + 6, y + 16), f"{tokens / GIB:.1f} GiB", "small")


def memory_bar(known: Catalog) -> str:
    """The terms of one GPU of the chat plan."""
    chosen = planned(known, "2xH200", Pins())
    memory = chosen.memory_per_gpu
    size = f"{memory.total_bytes / GIB:.2f} GiB"
    title = f"One of 2x H200, {chosen.checkpoint.id} {chosen.parallelism.label}: {size}"
    drawing = canvas(title, 720, 236)
    terms = [
        ("weights", memory.weights_bytes, "a"), ("activations at their peak", memory.activation_bytes, "b"),
        ("CUDA graphs", memory.cudagraph_bytes, "b"), ("buffers that stay", memory.non_torch_bytes, "b"),
        ("cache, planned on", memory.kv_cache_bytes - memory.margin_bytes, "d"),
        ("cache, not planned on (the margin)", memory.margin_bytes, "c"),
        ("not vLLM's to use", memory.total_bytes - memory.usable_bytes, "e"),
    ]  # fmt: skip
    x = Scale(0, memory.total_bytes, 260, 620)
    at = 0
    for i, (words, size, css) in enumerate(terms):
        y = 40 + 26 * i
        drawing.text((250, y + 15), words, "", "end")
        drawing.rect((260, y), (360, 18), "f")
        drawing.rect((x(at), y), (x(size) - x(0), 18), css)
        drawing.text((630, y + 15), f"{size / GIB:.2f} GiB")
        at += size
    return standing_alone(drawing, "memory", title, "; ".join(f"{w} {s / GIB:.2f} GiB" for w, s, _ in terms))


FIGURES = {
    "hybrid-cache.svg": hybrid_cache,
    "tensor-parallel.svg": tensor_parallel,
    "max-num-seqs.svg": max_num_seqs,
    "memory.svg": memory_bar,
}


def made() -> dict[Path, str]:
    """The figures."""
    known = load_catalog()
    return {IMAGES / name: draw(known) for name, draw in FIGURES.items()}
