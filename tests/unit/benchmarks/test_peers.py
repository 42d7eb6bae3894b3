"""Polyhead beside its peers: the command line, the targets, the report; and one real contender under a real load."""

import json

import pytest

from benchmarks.peers.__main__ import arguments
from benchmarks.peers.contenders import CONTENDERS, Plan
from benchmarks.peers.machine import pinning
from benchmarks.peers.report import markdown, write
from benchmarks.peers.rounds import Standing, Turn
from benchmarks.peers.targets import Target, targets
from benchmarks.peers.workloads import WORKLOADS
from benchmarks.peers.wrappers import WRAPPERS
from benchmarks.peers.wrk import Peak, WrkFailed, parse


def peak(connections, rate, errors=0, p50=0.002):
    return Peak(connections, rate, p50, 2 * p50, errors)


def standing(name, *rates, errors=0):
    """One turn a rate; 64 connections answer at the rate, 128 at a tenth more, with errors where asked."""
    turns = [
        Turn([peak(64, rate), peak(128, 1.1 * rate, errors)], peak(1, 400, p50=1 / rate), None, 64.0) for rate in rates
    ]
    return Standing(name, turns, memory=5 * 10**8)


def results(**workloads):
    content = {
        name: {
            "about": WORKLOADS[name].about,
            "contenders": {one.name: one.content() for one in standings},
            "bare": [{"seconds": {"1.0": 1e-4, "64.0": 1e-3}}] * 3,
        }
        for name, standings in workloads.items()
    }
    machine = {"processor": "a processor", "cores": 2, "system": "Linux", "python": "3.11"}
    whole = {"date": "2026-01-31", "machine": machine, "pinning": "cores", "rounds": 3, "workloads": content}
    return json.loads(json.dumps({**whole, "cobatching": {}}))


def named(found, what):
    return next(one for one in found if one.what.startswith(what))


def test_left_out_means_everything_and_quick_a_little_of_it():
    assert arguments([]).workload == list(WORKLOADS)
    assert arguments([]).contenders == list(CONTENDERS)
    quick = arguments(["--quick", "--rounds", "2"])
    assert (quick.workload, quick.rounds) == (["mlp", "mlp-json", "mlp-64rows"], 2)
    assert arguments(["--workload", "mlp, minilm"]).workload == ["mlp", "minilm"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--workload", "mpl"], "'mpl' is not one of mlp, "),
        (["--contenders", "triton"], "'triton' is not one of polyhead, "),
        (["--rounds", "0"], "--rounds must be 1 or more"),
    ],
)
def test_a_wrong_command_line_says_what_there_is(given, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        arguments(given)
    assert words in capsys.readouterr().err


def test_every_workload_names_contenders_that_there_are_and_each_is_pinned(tmp_path):
    for workload in WORKLOADS.values():
        assert set(workload.contenders) <= set(CONTENDERS)
        assert workload.contenders[0] == "polyhead"
    for contender in CONTENDERS.values():
        assert contender.name in WRAPPERS
        assert all(any(sign in package for sign in ("==", ">=", "<")) for package in contender.packages)
        command = contender.command(tmp_path / "python", Plan(tmp_path, 4321))
        assert "4321" in command
    torch = {package for one in CONTENDERS.values() for package in one.packages if package.startswith("torch==")}
    assert torch == {"torch==2.13.0"}


@pytest.mark.parametrize(
    ("cores", "server", "client"), [([0, 1], "0,1", "0,1"), ([4, 5, 6, 7], "4,5", "6"), ([3], "3", "3")]
)
def test_the_client_has_a_core_of_its_own_where_there_is_a_third(cores, server, client):
    pinned = pinning(cores)
    assert (pinned.server[-1], pinned.client[-1], pinned.one_core) == (server, client, cores[0])


def test_the_rate_is_the_best_median_of_those_numbers_of_connections_that_had_no_errors():
    assert standing("polyhead", 100, 300, 200).rate() == pytest.approx(220)
    assert standing("polyhead", 100, 300, 200, errors=3).rate() == pytest.approx(200)
    assert standing("polyhead", 100, 300, errors=3).errors() == {"128": 6}


def test_wrk_counts_only_good_answers():
    line = '{"requests": 1000, "microseconds": 500000, "p50": 2000, "p99": 9000, "status": 100, "connect": 0, '
    found = parse(f"Running 1s test\n{line}" + '"read": 7, "write": 0, "timeout": 0}\n', 64)
    assert (found.rate, found.p50, found.p99, found.errors) == (1800, 0.002, 0.009, 107)
    with pytest.raises(WrkFailed, match="no figures: unable to connect"):
        parse("unable to connect", 64)


def test_targets_are_ratios_and_misses_are_told():
    found = targets(
        results(
            mlp=[standing("polyhead", 1000, 1000), standing("mosec", 2000, 2000), standing("torchserve", 250, 250)],
            resnet18=[standing("polyhead", 50_000)],
        )
    )
    mosec, shipped = named(found, "mlp, binary: peak over mosec"), named(found, "mlp, binary: peak over TorchServe")
    assert (mosec.measured, mosec.met) == (pytest.approx(0.5), False)
    assert (shipped.measured, shipped.met) == (pytest.approx(4), True)
    alone = named(found, "mlp, binary, one connection")
    assert (alone.measured, alone.met) == (pytest.approx(2), False)
    bare = named(found, "resnet18: peak over the bare")  # 55 000/s over 64 in a millisecond
    assert (bare.measured, bare.met) == (pytest.approx(55 / 64), False)
    assert named(found, "mlp, JSON: peak over mosec").met is None


def test_wrong_answers_and_absent_peers_make_no_ratio():
    wrong = standing("mosec", 10)
    wrong.turns[0].faults.append("answer.intent: 1, expected 2")
    missing = Standing("torchserve", absent="torchserve ended with 1: no Java")
    found = results(mlp=[standing("polyhead", 1000), wrong, missing])
    assert named(targets(found), "mlp, binary: peak over mosec").measured is None
    text = markdown(found, "peers.png")
    assert "mosec (wrong answers)" in text
    assert "torchserve did not start: torchserve ended with 1: no Java" in text


def test_the_report_has_table_json_and_picture(tmp_path):
    found = results(mlp=[standing("polyhead", 1000, 1200), standing("mosec", 2000, errors=4)])
    path = write(found, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert path.name == "2026-01-31-peers.md"
    assert "| polyhead | 1,210 | 0.60 | 128 | 0.92 |  | 500 |" in text
    assert "**missed**" in text
    assert "mosec: 4 requests failed at 128 connections" in text
    assert json.loads(path.with_suffix(".json").read_text()) == found
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert Target("time", 1.05, 1.0, most=True).met


def test_polyhead_bears_a_load_with_right_answers(tmp_path):
    """The harness whole, small, with the client that needs no wrk."""
    from benchmarks.peers import openloop
    from benchmarks.peers.material import make
    from benchmarks.peers.rounds import Asked, Served

    workload = WORKLOADS["mlp"]
    material = make(workload, tmp_path / "material")
    asked = Asked(1, 1.0, 1.0, pinning(), lambda _: None)
    served = Served(CONTENDERS["polyhead"], material, asked, tmp_path)
    try:
        served.begin()
        load = openloop.run(served.port, served.whole, 150.0, 1.0, connections=16)
        judged = [served.judge(one.index, one.status, one.body) for one in load.samples]
        swapped = served.judge(load.samples[0].index + 1, 200, load.samples[0].body)
        before = served.counts()
    finally:
        served.stop()
    assert load.errors == 0
    assert load.good == load.sent > 100
    assert 0 < load.p50 <= load.p99 < 10
    assert len(judged) > 100
    assert [one for one in judged if one is not None] == []
    assert swapped is not None  # another request's answer would be seen
    assert before is not None
    assert before[0] >= load.sent
