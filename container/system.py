"""Leave of the base system what Polyhead runs on: `python3 -m container.system`, the last command of its stage.

What stays: libc and the libraries that Python, Java and nginx load, Python's standard library, nginx, certificates.
What goes: the shell, apt and dpkg, perl, everything that is there to install or to log in. The list of installed
packages goes on telling the truth, for scanners.
"""

from __future__ import annotations

import compileall
import functools
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from py_compile import PycInvalidationMode

from container.debian import closure, leave, read_packages

__all__ = ["main"]

# What is needed, by name; what these depend on stays too. Python is a package of Debian's, or the base's own in
# /usr/local, which then needs the libraries named here.
NEEDED = """
base-files ca-certificates libc6 libc-bin libgcc-s1 libstdc++6 zlib1g libssl3 libffi8 libexpat1 libbz2-1.0 liblzma5
libsqlite3-0 libuuid1 libcrypt1 python3 python3-minimal python3.11 python3.11-minimal libpython3-stdlib
libpython3.11-stdlib libpython3.11-minimal nginx-light
"""
# What others depend on for their installation alone: scripts of installation, and daemons that are not run.
UNNEEDED = """
adduser apt bash bsdutils coreutils dash debconf debianutils diffutils dpkg e2fsprogs findutils grep gzip hostname
init-system-helpers iproute2 libcap2-bin libdb5.3 libgssapi-krb5-2 libncursesw6 libnginx-mod-http-echo libnsl2
libreadline8 libtirpc3 login lsb-base mawk media-types mount ncurses-base ncurses-bin openssl passwd perl perl-base
python3-distutils python3-lib2to3 python3-pip-whl python3-setuptools-whl python3-venv python3.11-venv sed
sysvinit-utils tar tzdata ucf util-linux util-linux-extra
"""
# Of no use to a server: documents (licences are kept elsewhere), caches, logs, what builds programs.
RUBBISH = """
usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/lintian usr/share/bug usr/share/bash-completion
usr/share/perl5 usr/share/pixmaps usr/share/python-wheels usr/share/doc-base usr/share/common-licenses usr/share/menu
usr/share/nginx usr/include usr/local/include usr/lib/apt usr/lib/dpkg usr/lib/systemd usr/lib/init usr/lib/udev
usr/share/debconf usr/share/keyrings usr/share/pam usr/share/pam-configs usr/share/gcc usr/share/gdb usr/games etc/apt
etc/cron.d etc/cron.daily etc/init.d etc/logrotate.d etc/skel etc/systemd etc/ufw etc/default etc/pam.d etc/security
etc/kernel etc/rc0.d etc/rc1.d etc/rc2.d etc/rc3.d etc/rc4.d etc/rc5.d etc/rc6.d etc/rcS.d etc/perl etc/nginx
etc/.pwd.lock etc/shadow- etc/gshadow- etc/passwd- etc/group- etc/debconf.conf etc/pam.conf etc/bash.bashrc var/cache
var/log var/backups var/lib/apt var/lib/pam var/lib/systemd var/lib/nginx var/lib/dpkg/status-old
var/lib/dpkg/triggers var/lib/dpkg/alternatives var/lib/dpkg/diversions var/lib/dpkg/lock var/lib/dpkg/lock-frontend
var/lib/dpkg/available var/lib/dpkg/statoverride var/lib/dpkg/parts var/lib/dpkg/updates var/lib/ucf var/lib/misc
root/.bashrc root/.profile root/.cache root/.wget-hsts boot media mnt srv opt src usr/src usr/local/share/man
"""
# Parts of Python's standard library, as globs: installers, editors, tests, what links programs or draws on terminals.
OF_PYTHON = """
ensurepip idlelib lib2to3 test tkinter turtledemo distutils pydoc_data config-3* site-packages/* lib-dynload/_curses*
lib-dynload/_dbm* lib-dynload/_gdbm* lib-dynload/_tkinter* lib-dynload/nis.* lib-dynload/readline.* lib-dynload/_test*
"""
COMMANDS = (
    "pip*",
    "idle*",
    "2to3*",
    "pydoc*",
    "wheel",
    "*-config",
    "easy_install*",
    "py3*",
    "pdb3*",
    "pygettext3*",
    "update-*",
)


def main() -> None:
    """Prune the very system that this runs in. Afterwards nothing can be run here but Python and nginx."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "/")
    packages = read_packages(root)
    kept = closure(packages, NEEDED.split(), set(UNNEEDED.split()))
    licences(root)
    left = leave(root, packages, kept)
    for name in RUBBISH.split():
        remove(root / name)
    standard_library(root)
    for folder in ("usr/bin", "usr/sbin", "etc/alternatives"):  # links to what left
        for path in (root / folder).glob("*"):
            if path.is_symlink() and not path.exists():
                remove(path)
    sys.stdout.write(f"{len(kept)} Debian packages stay, {left} left\n")


def licences(root: Path) -> None:
    """Keep what Debian says of licences, before the documents go: `usr/share/polyhead/licences/debian`."""
    kept = root / "usr/share/polyhead/licences/debian"
    shutil.rmtree(kept, ignore_errors=True)
    for path in sorted((root / "usr/share/doc").glob("*/copyright")):
        target = kept / path.parent.name
        kept.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for path in sorted((root / "usr/share/common-licenses").glob("*")):  # which the copyright files refer to
        if not path.is_symlink():
            target = kept / "common-licenses" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def standard_library(root: Path) -> None:
    """Prune and compile Python's standard library.

    The compiled files name no time of their source, so that they hold whatever times an image's builder sets.
    """
    library = root / sysconfig.get_path("stdlib").lstrip("/")
    for pattern in OF_PYTHON.split():
        for path in library.glob(pattern):
            remove(path)
    for folder in ("usr/bin", "usr/local/bin"):
        for pattern in COMMANDS:
            for path in (root / folder).glob(pattern):
                remove(path)
    for cache in library.rglob("__pycache__"):
        remove(cache)
    inside = None if root == Path("/") else str(root)  # the compiled files name the sources as they lie in the image
    compileall.compile_dir(library, quiet=2, stripdir=inside, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


def remove(path: Path) -> None:
    """A file, a link, or a directory with all it holds; nothing where there is none, or where something is mounted."""
    if any(mounted.is_relative_to(path) for mounted in mounts()):
        sys.stdout.write(f"{path} stays: something is mounted there\n")
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


@functools.cache
def mounts() -> list[Path]:
    """Where something is mounted: whose files are the host's, and never ours to remove."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [Path(line.split()[4]) for line in lines]


if __name__ == "__main__":
    main()
