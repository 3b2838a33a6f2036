"""Clocks that are set anew in the middle of a round, as by a late time service, and a while later set right."""

from pathlib import Path

import pytest

from server.journal import DONE
from tests.faults.table import Tell
from tests.faults.weather import ALL_PRESENT, Make
from tests.faults.world import SITES
from tests.network.world import wait_for

pytestmark = pytest.mark.faults
HOURS = 3600.0
CAME = "the site is turned away by how much it is off and waits; then it goes on, if need be after `resume`"


@pytest.mark.parametrize("hours", [2.0, -2.0])
@pytest.mark.parametrize("who", ["server", "alder"])
def test_a_clock_that_jumps_in_mid_round_and_is_set_right(who: str, hours: float, make: Make, tell: Tell) -> None:
    """While the two clocks differ, the coordinator turns the site away and says by how much; nothing else is lost."""
    world = make(state="training", environment={"CLOCKS": "1"})
    world.reached(120)
    clock: Path = world.folder / f"clock-{who}"
    clock.write_text(str(hours * HOURS))
    words = "ahead of" if (who == "alder") == (hours > 0) else "behind"
    wait_for("the site tells of its clock", lambda: f"s {words} the coordinator's" in world.clients["alder"].said, 90)
    clock.unlink()
    world.go_on()
    world.connected(*SITES)
    world.ended()
    assert world.status == (DONE, "")
    assert world.present() == ALL_PRESENT
    assert set(world.trained().values()) == {1}
    tell("site's clock" if who == "alder" else "coordinator's clock", CAME)
