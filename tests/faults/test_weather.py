"""Rough weather, with real processes over TLS: links that break or crawl, and answers that come late or never."""

import pytest

from client.audit import AuditLog
from tests.faults.table import Tell
from tests.faults.weather import ALL_PRESENT, END_SECONDS, Make
from tests.faults.world import ROUNDS
from tests.network.proxy import Proxy
from tests.network.world import wait_for

pytestmark = pytest.mark.faults
MEGABIT = 125_000
"""Bytes a second."""


def test_a_connection_that_is_cut_in_mid_upload(make: Make, tell: Tell) -> None:
    """Four times, each after 3 MB of a reply of 17 MB."""
    proxy = Proxy(cut_after=3_000_000, cuts=4)
    world = make(proxy=proxy.url)
    assert world.follower.ends(END_SECONDS) == 0, world.follower.said
    proxy.close()
    assert proxy.cuts == 0
    assert world.present() == ALL_PRESENT
    assert set(world.trained().values()) == {1}
    tell("cut", "the upload goes on; no answer is made twice")


def test_a_link_of_a_megabit_with_half_a_second_of_delay(make: Make, tell: Tell) -> None:
    proxy = Proxy(bytes_per_second=MEGABIT, delay=0.5)
    world = make(proxy=proxy.url, plan={"rounds": 1, "round_minutes": 30})
    assert world.follower.ends(1500) == 0, world.follower.said
    proxy.close()
    assert world.present() == ALL_PRESENT[:1]
    assert set(world.trained().values()) == {1}
    tell("slow", f"a round of two sites takes {world.store.record(1)['seconds']:.0f} s, and nobody is absent")


def test_an_answer_after_the_deadline_is_named_and_not_counted(make: Make, tell: Tell) -> None:
    world = make(state="training", plan={"round_minutes": 0.25, "minimum_sites": 1})
    world.reached(120)
    wait_for("round 2", lambda: world.store.last_round() >= 2)
    world.go_on()
    assert world.follower.ends(END_SECONDS) == 0, world.follower.said
    record = world.store.record(2)
    assert sorted(record["sites"]) == ["birch"]
    (absent,) = record["absent"]
    assert absent["site"] == "alder" and "answer before the deadline" in absent["reason"]
    assert f"absent: alder: {absent['reason']}" in world.follower.said
    assert set(world.trained().values()) == {1}
    tell("late", f'"absent: {absent["reason"]}"; the late reply counts in no round')


def test_an_announced_answer_that_never_comes_holds_up_nobody(make: Make, tell: Tell) -> None:
    """alder's upload stops after its first word; birch's answer is taken meanwhile, and the deadline is kept."""
    world = make(plan={"round_minutes": 0.5, "minimum_sites": 1}, environment={"ODD": "alder", "UPLOADS": "announced"})
    assert world.follower.ends(END_SECONDS) == 0, world.follower.said
    assert world.present() == [["birch"]] * ROUNDS
    for index in range(1, ROUNDS + 1):
        (absent,) = world.store.record(index)["absent"]
        assert absent["site"] == "alder" and "answer before the deadline" in absent["reason"]
        assert world.store.record(index)["seconds"] < 60
    tell("announced", "the others' answers count meanwhile, and the site is absent at the deadline")


def test_a_site_that_would_train_for_ever_ends_its_work_by_its_own_policy(make: Make, tell: Tell) -> None:
    world = make(state="training", plan={"minimum_sites": 1}, policy={"minutes_per_round": 0.5})
    world.reached(120)
    assert world.follower.ends(END_SECONDS) == 0, world.follower.said
    record = world.store.record(2)
    assert sorted(record["sites"]) == ["birch"]
    (refused,) = record["refused"]
    assert refused["site"] == "alder" and "process failed" in refused["reason"]
    log = AuditLog(world.folder / "alder" / "state")
    assert log.verify() is None
    assert [line for line in log.lines() if '"event":"ended"' in line]
    tell("for ever", "its own policy ends the work (`minutes_per_round`), and the round names it")


def test_a_site_that_goes_and_comes_again_takes_part_again(make: Make, tell: Tell) -> None:
    world = make(state="training", plan={"minimum_sites": 1, "rounds": 5, "round_minutes": 0.3})
    world.reached(120)
    world.clients["alder"].stop()
    world.go_on()
    world.clients["alder"] = world.join(world.folder / "alder" / "config.yaml")
    assert world.follower.ends(END_SECONDS) == 0, world.follower.said
    present = world.present()
    assert all("birch" in sites for sites in present)
    assert "alder" in present[0] and "alder" in present[-1]
    tell("comes and goes", "absent while it is away, present afterwards")
