"""A sandbox for the process that enters it and those that it starts: it opens only named files, and has no network.

Landlock of Linux restricts files and TCP, see landlock(7) and linux/landlock.h; a seccomp filter refuses sockets, see
seccomp(2). Where the kernel lacks one of them, or has an older one, less is restricted and nothing fails. Each thread
is restricted alone: enter before any other starts.
"""

import contextlib
import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

# The machine's number in seccomp, and that of its system call socket. The other calls have the same numbers on both.
MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
CREATE_RULESET, ADD_RULE, RESTRICT_SELF, IO_URING_SETUP = 444, 445, 446, 425
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
REFER, TRUNCATE = 1 << 13, 1 << 14
BIND_TCP, CONNECT_TCP = 1, 2

READ = READ_FILE | READ_DIR
RUN = READ | EXECUTE
WRITE = READ | WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE  # the others are rights of folders

# By version of the interface: how many rights of files it knows (`EXECUTE` is the first), and the size of its settings.
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
SETTINGS = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}
LATEST, LATEST_SETTINGS = 6, 24
SCOPES = 3  # neither signals to other processes nor sockets without a path


def version() -> int:
    """The version of Landlock's interface that the kernel has; 0: none."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return 0
    return max(_call(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION), 0)


def restrict(rights: Mapping[str | Path, int], *, connects: bool) -> bool:
    """Restrict this process to these rights, for good.

    Args:
        rights: of each file, or of each folder and all below it: READ, RUN, WRITE. A path that does not exist has none.
        connects: whether it may open connections; it can never accept one over TCP.

    Returns:
        Whether the kernel restricts the files.
    """
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return False
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    restricted = _restrict_files(rights, connects)
    if not connects:
        _refuse_sockets()
    return restricted


def _restrict_files(rights: Mapping[str | Path, int], connects: bool) -> bool:
    known = version()
    if not known:
        return False
    every = (1 << RIGHTS.get(known, 16)) - 1
    net = BIND_TCP if connects else BIND_TCP | CONNECT_TCP
    settings = struct.pack("=QQQ", every, net, SCOPES)[: SETTINGS.get(known, LATEST_SETTINGS)]
    rules = _call(CREATE_RULESET, settings, len(settings), 0)
    if rules < 0:
        return False
    try:
        for path, allowed in rights.items():
            with contextlib.suppress(OSError):
                _allow(rules, path, allowed & every)
        return _call(RESTRICT_SELF, rules, 0) == 0
    finally:
        os.close(rules)


def _refuse_sockets() -> None:
    """Have the kernel refuse new sockets, also by io_uring and by the numbers of other interfaces."""
    machine, new_socket = MACHINES[platform.machine()]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    program = (
        (load, 0, 0, 4),  # the machine
        (equal, 1, 0, machine),
        (give, 0, 0, 0x80000000),  # end the process
        (load, 0, 0, 0),  # the number of the call
        (at_least, 2, 0, 1 << 30),  # those of x32
        (equal, 1, 0, new_socket),
        (equal, 0, 1, IO_URING_SETUP),
        (give, 0, 0, 0x00050000 | errno.EACCES),
        (give, 0, 0, 0x7FFF0000),  # allow
    )
    filters = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    settings = struct.pack("@HP", len(program), ctypes.addressof(filters))
    ctypes.CDLL(None).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(settings), 0, 0)


def programs(right: int = READ) -> dict[str | Path, int]:
    """What any Python process reads, with the right READ or RUN: programs, loaded packages, and the system's files."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    installed = (*prefixes, "/usr", "/lib", "/lib64", "/bin", "/nix/store", "/gnu/store")
    system = ("/etc", "/proc", "/sys", "/dev/zero", "/dev/random", "/dev/urandom")
    rights: dict[str | Path, int] = dict.fromkeys(filter(None, sys.path), READ_DIR)
    rights |= dict.fromkeys((*_packages(tuple(prefixes)), *system), READ)
    return rights | dict.fromkeys(installed, right) | {os.devnull: READ | WRITE_FILE}


def _packages(within: tuple[str, ...]) -> Iterable[str]:
    """The modules and packages of this process that are not `within` these folders, and folders of such packages."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and "." not in name and not file.startswith(within):
            yield os.path.dirname(file) if hasattr(module, "__path__") else file
    yield from (path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages"))


def _allow(rules: int, path: str | Path, allowed: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rule = struct.pack("=Qi", allowed if is_folder else allowed & OF_FILES, descriptor)
        _call(ADD_RULE, rules, RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    values = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in arguments]
    return ctypes.CDLL(None).syscall(ctypes.c_long(number), *values)
