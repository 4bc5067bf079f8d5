"""What a quantization costs in answers, as far as anybody published it for these very weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qwenhost.facts import Source, Value

if TYPE_CHECKING:
    from qwenhost.facts import Checkpoint


class QualityLoss(Value, frozen=True, kw_only=True):
    """Scores of a checkpoint against its baseline, in points."""

    state: Literal["reference", "published", "not published"]
    """``reference``: the weights as trained, against which others are measured."""
    benchmarks: int = 0
    mean_points: float | None = None
    """Mean change; below 0 is a loss."""
    worst_points: float | None = None
    worst_benchmark: str = ""
    uncalibrated_cache: bool = False
    """The KV cache is stored in FP8 without scales, whose effect nobody published."""
    source: Source | None = None

    @property
    def words(self) -> str:
        """For a column: ``-0.60 GPQA Diamond, worst of 5; mean +0.04``."""
        if self.state == "published":
            text = f"{self.worst_points:+.2f} {self.worst_benchmark}"
            if self.benchmarks > 1:
                text += f", worst of {self.benchmarks}; mean {self.mean_points:+.2f}"
        else:
            text = "none, as trained" if self.state == "reference" else "not published"
        return text + ("; FP8 cache without scales: not published" if self.uncalibrated_cache else "")


def quality_loss(checkpoint: Checkpoint, kv_cache_dtype: str) -> QualityLoss:
    """What is known of this checkpoint with this cache type."""
    bare = kv_cache_dtype.startswith("fp8") and not checkpoint.declared_kv_cache_dtype
    if checkpoint.quality:
        changes = [(note.score - note.baseline, note) for note in checkpoint.quality]
        worst, note = min(changes, key=lambda change: change[0])
        return QualityLoss(
            state="published",
            benchmarks=len(changes),
            mean_points=round(sum(change for change, _ in changes) / len(changes), 4),
            worst_points=round(worst, 4),
            worst_benchmark=note.benchmark,
            uncalibrated_cache=bare,
            source=note.source,
        )
    state: Literal["reference", "not published"] = "not published"
    if checkpoint.quantization == "none":
        state = "reference"
    return QualityLoss(state=state, uncalibrated_cache=bare)
