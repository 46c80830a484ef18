"""How much memory a process has used."""

from pathlib import Path


def peak_megabytes():
    """The most memory that this process has had. Not getrusage, which starts from what the parent had."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024
