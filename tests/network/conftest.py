"""What several files of network tests start from."""

from collections.abc import Iterator

import pytest

from tests.federation import Cohort
from tests.network.interrupted import Interrupted
from tests.network.world import World, sites_of


@pytest.fixture(scope="module")
def federation(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interrupted]:
    world = World(tmp_path_factory.mktemp("recovery"))
    try:
        yield Interrupted(world, sites_of(cohort, world.folder))
    finally:
        world.close()
