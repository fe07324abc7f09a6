"""The bundled tiny guest: a kernel of Debian's and an initramfs of our own, made once and kept.

    files = build(Path(".cache/guest"), say=print)

`python -m pool.guest` does the same from a shell. Nothing is installed and root is not needed: the two packages it
is made of are downloaded by the machine's own `apt-get` and unpacked.
"""

from pool.guest.build import GuestBuildError, GuestFiles, build, find

__all__ = ["GuestBuildError", "GuestFiles", "build", "find"]
