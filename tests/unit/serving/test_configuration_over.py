"""Keys of config.properties that the command line sets over the file's: `--set`."""

from __future__ import annotations

import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.torchserve.configuration import DEFAULT_CONFIG, Configuration


def test_a_line_of_the_command_line_stands_for_the_files_and_no_other():
    plain = Configuration.load(DEFAULT_CONFIG)
    over = [" polyhead_workers = 3", "polyhead_front_rate=50", "vmargs=-Xmx1g -Xms64m", "polyhead_drain_delay=2"]
    given = Configuration.load(DEFAULT_CONFIG, over)
    assert given.settings_with({}, "test").workers == 3
    assert given.front_with({}, "test").rate == 50
    assert given.service_with({}, "test").drain_delay == 2
    assert given.java_arguments() == ["-Xmx1g", "-Xms64m"]
    assert {k: v for k, v in given.properties.items() if k != "vmargs"} == {
        k: v for k, v in plain.properties.items() if k != "vmargs"
    }


@pytest.mark.parametrize(
    ("over", "said"),
    [
        (["workers"], "--set: 'workers' is no key=value"),
        (
            ["polyhead_wokers=3"],
            "--set: 'polyhead_wokers' is no key of TorchServe 0.12 or Polyhead: check its spelling",
        ),
        (["polyhead_workers=3", "polyhead_workers=4"], "--set: polyhead_workers stands twice"),
        (["management_address=http://0.0.0.0:8081"], "--set: management_address is set by polyhead serve: "),
    ],
)
def test_a_line_that_the_file_could_not_hold_is_refused(over, said):
    with pytest.raises(LaunchError) as refused:
        Configuration.load(DEFAULT_CONFIG, over)
    assert str(refused.value).startswith(said)
