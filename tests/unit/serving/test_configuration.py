"""TorchServe's configuration: what we render, and what we refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from polyhead.models.spec import ModelSpec
from polyhead.serving.errors import LaunchError
from polyhead.serving.settings import ServiceSettings, Settings
from polyhead.serving.torchserve.configuration import DEFAULT_CONFIG, OURS, TORCHSERVES, Addresses, Configuration
from polyhead.serving.torchserve.layout import model_files

ADDRESSES = Addresses("0.0.0.0", 8080, 8081, 8082, 7070, 7071, 7072)
SPEC = ModelSpec.parse(
    {
        "name": "m",
        "version": "2.1",
        "inputs": {"x": {"kind": "tensor", "shape": [1]}},
        "heads": {"y": {"kind": "regression"}},
    }
)


def load(folder: Path, text: str) -> Configuration:
    (folder / "config.properties").write_text(text)
    return Configuration.load(folder / "config.properties")


def test_the_roots_file_is_read_and_gives_the_default_settings():
    configuration = Configuration.load(DEFAULT_CONFIG)
    assert configuration.settings_with({}, "test") == Settings()
    assert configuration.service_with({}, "test") == ServiceSettings()
    assert set(configuration.settings) == set(Settings.model_fields), "a setting is missing from config.properties"
    assert set(configuration.service) == set(ServiceSettings.model_fields)
    assert configuration.may_deploy
    assert configuration.properties["decode_input_request"] == "false"
    assert configuration.properties["enable_envvars_config"] == "false"


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    configuration = load(tmp_path, "polyhead_workers=3\npolyhead_threads=2\n")
    settings = configuration.settings_with({"workers": 4, "device": None}, "test")
    assert (settings.workers, settings.threads, settings.device) == (4, 2, "auto")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_reqest_size=1", "line 1: 'max_reqest_size' is no key of TorchServe 0.12 or Polyhead"),
        ("polyhead_worker=1", "line 1: 'polyhead_worker' is no key"),
        ("# fine\n\nmodel_store=/x", "line 3: model_store is set by polyhead serve"),
        ("debug=true\ndebug=false", "line 2: debug stands twice"),
        ("debug", "line 1: 'debug' is no key=value"),
        ("certificate_file=/a.pem", "line 1: certificate_file would be without effect: terminate TLS in the proxy"),
        ("metrics_config=./m.yaml", "line 1: metrics_config=./m.yaml: give an absolute path"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused_with_its_place(tmp_path, text, message):
    with pytest.raises(LaunchError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_a_file_that_is_not_there_and_a_value_that_is_none_are_refused(tmp_path):
    with pytest.raises(LaunchError, match="cannot be read"):
        Configuration.load(tmp_path / "nothing")
    with pytest.raises(LaunchError, match="test: workers: "):
        load(tmp_path, "polyhead_workers=many").settings_with({}, "test")


def test_our_keys_and_torchserves_do_not_overlap():
    assert not set(OURS) & set(TORCHSERVES)


def test_the_effective_file_keeps_management_in_a_private_folder_and_metrics_and_grpc_on_the_loopback():
    text = Configuration.load(DEFAULT_CONFIG).render(ADDRESSES, Path("/private/m"), Path("/store"), ["a-1", "b-2"])
    effective = dict(line.split("=", 1) for line in text.splitlines())
    assert effective["inference_address"] == "http://0.0.0.0:8080"
    assert effective["management_address"] == "unix:/private/m"
    assert effective["metrics_address"] == "http://127.0.0.1:7072", "8082 is the side server's"
    assert effective["grpc_inference_address"] == effective["grpc_management_address"] == "127.0.0.1"
    assert effective["load_models"] == "a-1,b-2"
    assert effective["allowed_urls"] == "file:///nowhere"
    assert not any(key.startswith("polyhead_") or key == "vmargs" for key in effective)
    assert ADDRESSES.url == ADDRESSES.torchserve_url == "http://127.0.0.1:8080"


def test_behind_a_front_door_torchserve_is_on_the_loopback_alone():
    addresses = replace(ADDRESSES, behind=9090)
    text = Configuration.load(DEFAULT_CONFIG).render(addresses, Path("/private/m"), Path("/store"), [])
    assert "inference_address=http://127.0.0.1:9090\n" in text
    assert "8080" not in text
    assert (addresses.url, addresses.torchserve_url) == ("http://127.0.0.1:8080", "http://127.0.0.1:9090")


def test_keys_of_the_server_and_of_the_front_door_have_groups_of_their_own(tmp_path):
    text = "polyhead_probe_interval=2.5\npolyhead_front_door=true\npolyhead_front_rate=7\npolyhead_workers=2\n"
    configuration = load(tmp_path, text)
    service = configuration.service_with({"drain_timeout": 9, "drain_delay": None}, "test")
    assert (service.probe_interval, service.drain_delay, service.drain_timeout) == (2.5, 0, 9)
    front = configuration.front_with({"door": None}, "test")
    assert (front.door, front.rate) == (True, 7)
    assert configuration.front_with({"door": False}, "test").door is False
    assert dict(configuration.settings) == {"workers": "2"}
    with pytest.raises(LaunchError, match="'polyhead_front_dor' is no key"):
        load(tmp_path, "polyhead_front_dor=true")
    with pytest.raises(LaunchError, match="drain_delay 30 s leaves nothing of drain_timeout 25 s"):
        configuration.service_with({"drain_delay": 30}, "settings")


def test_the_models_configuration_says_both_worker_counts_and_times_in_torchserves_units():
    settings = Settings(workers=2, max_batch_size=16, max_batch_delay=3, job_queue_size=7)
    files = model_files(SPEC, settings, "/bundles/m", "cpu", {"report": "/reports/worker"})
    config = yaml.safe_load(files["model-config.yaml"])
    assert (config["minWorkers"], config["maxWorkers"]) == (2, 2)
    assert (config["batchSize"], config["maxBatchDelay"], config["jobQueueSize"]) == (16, 3, 7)
    assert config["deviceType"] == "cpu"
    assert (config["polyhead"]["bundle"], config["polyhead"]["report"]) == ("/bundles/m", "/reports/worker")
    assert Settings.parse(config["polyhead"]["settings"], "test") == settings
    assert "deviceType" not in yaml.safe_load(model_files(SPEC, settings, "b", "auto")["model-config.yaml"])
