"""What a coordinator keeps about its runs while several are in progress."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server.conduct import Heads
from server.journal import DONE, PAUSED, RUNNING, WAITING, Event, Journal, asked, told
from shared_model.checkpoint import write_json


def test_heads_of_two_runs_do_not_undo_each_other(tmp_path: Path) -> None:
    first, second = Heads(tmp_path / "heads.json"), Heads(tmp_path / "heads.json")
    first["alder"] = "1:aa"
    second["birch"] = "4:bb"
    first["alder"] = "2:cc"
    assert dict(second) == {"alder": "2:cc", "birch": "4:bb"}
    assert second.pop("alder", None) == "2:cc"
    assert dict(first) == {"birch": "4:bb"}


def test_heads_written_at_the_same_time_all_stay(tmp_path: Path) -> None:
    def write(site: str) -> None:
        heads = Heads(tmp_path / "heads.json")
        for number in range(5):
            heads[site] = f"{number}:aa"

    sites = [f"site-{index}" for index in range(4)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, sites))
    assert dict(Heads(tmp_path / "heads.json")) == dict.fromkeys(sites, "4:aa")


def test_a_run_whose_process_is_gone_has_paused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.status() == (WAITING, "")
    journal.set(RUNNING)
    assert journal.status() == (RUNNING, "")
    values = json.loads((tmp_path / "status.json").read_bytes())
    values["process"]["started"] -= 100  # the machine was started anew, and another process has the number
    write_json(tmp_path / "status.json", values)
    assert journal.status() == (PAUSED, "its process ended without a word")
    journal.set(DONE)
    assert journal.status() == (DONE, "")


def test_who_is_asked_and_has_not_answered() -> None:
    events = [
        Event(event="opened", sites=["alder", "birch", "cedar"], time=1.0),
        Event(event="round", round=1, sites=["alder", "birch", "cedar"], time=2.0),
        Event(event="reply", round=1, site="birch", time=3.0),
        Event(event="refused", round=1, site="cedar", time=4.0),
    ]
    assert asked(events) == {"alder": 2.0}
    assert asked([*events, Event(event="committed", round=1, time=5.0)]) == {}
    again = Event(event="round", round=1, sites=["alder", "cedar"], time=6.0)
    assert asked([*events, again]) == {"alder": 6.0, "cedar": 6.0}


def test_a_line_that_lacks_a_fact_is_told_without_it_and_a_damaged_one_not_at_all(tmp_path: Path) -> None:
    lines = [b'{"event": "refused"}', b'{"event": "opened", "sites": 3}', b"[]", b'{"event": "reply", "time": 1e300}']
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n" + b'{"event": "closed"')
    events = [event for _, event in Journal(tmp_path).events()]
    assert [event.event for event in events] == ["refused", "damaged", "damaged", "damaged"]
    assert [told(event, 2) for event in events] == ["refused: : ", None, None, None]
    assert asked(events) == {}
