"""KEDA and the HPA by hand: tolerance, rounding, windows, rates, cooldown."""

from __future__ import annotations

import pytest

from qwenhost.simulate.fleet_autoscale import Autoscaler
from qwenhost.simulate.fleet_config import Autoscale, Hours, Policy, Range, ScalingRules, Trigger

WIDE = Range(low=1, high=100)
AT_ONCE = ScalingRules(window_s=0, policies=(Policy(kind="pods", value=100, period_s=15),))


def scaler(**changes: object) -> Autoscaler:
    """In flight at 10 per replica."""
    values: dict[str, object] = {"triggers": (Trigger(metric="in-flight", target=10.0),)}
    return Autoscaler(Autoscale(**(values | changes)))  # type: ignore[arg-type]


def synced(one: Autoscaler, now: float, total: float, current: int, bounds: Range = WIDE) -> int:
    """One turn of the HPA."""
    return one.sync(now, {"in-flight": total, "waiting": total}, current, bounds)


class TestHpa:
    @pytest.mark.parametrize(
        ("total", "wanted"), [(40, 4), (43.9, 4), (44.1, 5), (61, 7), (36.1, 4), (35.9, 4), (30, 3), (29, 3)]
    )
    def test_tolerance_and_rounding(self, total: float, wanted: int) -> None:
        """Four replicas at 10 each: within 10 % nothing, beyond it ceil(total / 10)."""
        one = scaler(up=AT_ONCE, down=AT_ONCE)
        assert synced(one, 0, total, 4) == wanted

    def test_the_largest_wish_wins(self) -> None:
        """Two triggers, 10 and 2 each: 30 ask for 3 and for 15."""
        two = (Trigger(metric="in-flight", target=10.0), Trigger(metric="waiting", target=2.0))
        assert synced(scaler(triggers=two, up=AT_ONCE), 0, 30, 3) == 15

    def test_up_by_default_doubles_or_adds_four(self) -> None:
        """The larger of +4 and +100 % in 15 s; 1, 5, 10, 20."""
        one, current = scaler(), 1
        for turn, expected in enumerate((5, 10, 20, 40)):
            current = synced(one, 15.0 * turn, 1000, current)
            assert current == expected

    def test_a_policy_counts_from_the_start_of_its_period(self) -> None:
        """One pod a minute: a second one within the minute is refused."""
        slow = ScalingRules(window_s=0, policies=(Policy(kind="pods", value=1, period_s=60),))
        one = scaler(up=slow)
        assert [synced(one, 15.0 * turn, 1000, 1 + (turn > 0) + (turn > 4)) for turn in range(6)] == [
            2, 2, 2, 2, 3, 3,
        ]  # fmt: skip

    def test_down_waits_for_the_window(self) -> None:
        """The most that was recommended in the last 300 s holds."""
        one = scaler()
        assert synced(one, 0.0, 80, 8) == 8
        turns = [synced(one, 15.0 * turn, 20, 8) for turn in range(1, 22)]
        assert turns == [8] * 19 + [2, 2]

    def test_up_may_wait_as_well(self) -> None:
        """With a window of 60 s, the least recommended in it holds; the present number counts first."""
        one = scaler(up=ScalingRules(window_s=60, policies=AT_ONCE.policies))
        assert [synced(one, 15.0 * turn, 50, 1) for turn in range(6)] == [1, 1, 1, 1, 5, 5]

    def test_bounds(self) -> None:
        """Never beyond most and fewest, and back into them at once."""
        one = scaler(up=AT_ONCE, down=AT_ONCE)
        assert synced(one, 0, 1000, 4, Range(low=2, high=6)) == 6
        assert synced(one, 15, 0, 4, Range(low=2, high=6)) == 2
        assert synced(one, 30, 0, 1, Range(low=2, high=6)) == 2
        assert synced(one, 45, 1000, 9, Range(low=2, high=6)) == 6

    def test_it_leaves_none_alone(self) -> None:
        """A target of zero disables the HPA; it never goes to zero itself."""
        one = scaler(up=AT_ONCE, down=AT_ONCE)
        assert synced(one, 0, 1000, 0, Range(low=0, high=5)) == 0
        assert synced(one, 15, 0, 3, Range(low=0, high=5)) == 1


class TestKeda:
    def test_from_none(self) -> None:
        """Active: to the fewest, at least one. Idle: stays."""
        one = scaler()
        assert one.poll(30, active=False, current=0, bounds=Range(low=0, high=5)) == 0
        assert one.poll(60, active=True, current=0, bounds=Range(low=0, high=5)) == 1

    def test_to_none_after_the_cooldown(self) -> None:
        """300 s after it was last active, and not at 300 s sharp."""
        one, bounds = scaler(), Range(low=0, high=5)
        one.poll(30, active=True, current=1, bounds=bounds)
        assert one.poll(330, active=False, current=1, bounds=bounds) == 1
        assert one.poll(360, active=False, current=1, bounds=bounds) == 0

    def test_never_to_none_where_one_must_stay(self) -> None:
        """With minReplicaCount 1 the last one stays."""
        assert scaler().poll(1e6, active=False, current=1, bounds=Range(low=1, high=5)) == 1


def test_hours_hold() -> None:
    """Weekdays 22:00 to 02:00 hold into Saturday morning, not into Monday's."""
    night = Hours(days=(0, 1, 2, 3, 4), from_s=79_200, to_s=7_200, replicas=Range(low=1, high=1))
    hour, day = 3600.0, 86_400.0
    assert night.hold_at(23 * hour)
    assert not night.hold_at(1 * hour)  # Monday 01:00 belongs to Sunday
    assert night.hold_at(5 * day + 1 * hour)
    assert not night.hold_at(5 * day + 23 * hour)
    assert night.hold_at(7 * day + 23 * hour)
