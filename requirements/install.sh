#!/bin/sh
# Install a lock and torch's: requirements/install.sh LOCK TORCH PYTHON   (from the project's root)
#   LOCK    dev, serve or gpu; none: torch alone
#   TORCH   cpu, cuda, or auto: the CPU build where pip is offered one, else the CUDA build; none: the lock alone
#   PYTHON  of the environment to install into
# The locks are complete (--no-deps) and carry hashes (--require-hashes): pip installs exactly these files.
set -eu
lock=$1 torch=$2 python=$3
install() { "$python" -m pip --disable-pip-version-check --quiet --no-input install --require-hashes --no-deps -r "requirements/$1.lock"; }
case "$torch" in
    auto | cpu | cuda | none) ;;
    *) echo "TORCH=$torch: give auto, cpu, cuda or none" >&2; exit 2 ;;
esac
[ "$lock" = none ] || install "$lock"
[ "$lock" != dev ] || install pretrained
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
[ "$torch" != none ] || exit 0
echo "torch: $torch build"
install "torch-$torch" || {
    [ "$torch" != cpu ] || echo "torch's CPU build comes from no package index: offer it to pip, as a folder (PIP_FIND_LINKS)" \
        "or PyTorch's own index of CPU builds (PIP_EXTRA_INDEX_URL)" >&2
    exit 1
}
