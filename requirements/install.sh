#!/bin/sh
# Install a lock and torch's: requirements/install.sh LOCK TORCH PYTHON   (from the project's root)
#   LOCK    dev or serve
#   TORCH   cpu, cuda, or auto: the CPU build where pip is offered one, else the CUDA build
#   PYTHON  of the environment to install into
# The locks are complete (--no-deps) and carry hashes (--require-hashes): pip installs exactly these files.
set -eu
lock=$1 torch=$2 python=$3
install() { "$python" -m pip --disable-pip-version-check --quiet --no-input install --require-hashes --no-deps -r "requirements/$1.lock"; }
case "$torch" in
    auto | cpu | cuda) ;;
    *) echo "TORCH=$torch: give auto, cpu or cuda" >&2; exit 2 ;;
esac
install "$lock"
[ "$lock" = serve ] || install pretrained
if [ "$torch" = auto ]; then
    if "$python" -m pip --disable-pip-version-check --quiet --no-input download --no-deps --require-hashes \
        --dest "${TMPDIR:-/tmp}/polyhead-torch.$$" -r requirements/torch-cpu.lock 2>/dev/null; then
        torch=cpu
    else
        torch=cuda
        echo "torch: no CPU build is offered here; installing the CUDA build, which takes some gigabytes" >&2
    fi
    rm -rf "${TMPDIR:-/tmp}/polyhead-torch.$$"
fi
echo "torch: $torch build"
install "torch-$torch"
