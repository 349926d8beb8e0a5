"""The Go programs prove runs: which, where their source is pinned, built once and cached.

`ensure("prometheus")` answers with the paths of a tool's binaries, building them on first use;
`ensure_service("order-service")` does the same for our own Go programs, whose cache entry follows
their sources.
"""

from prove.tools import verify
from prove.tools.builder import cache_dir, check_go, ensure, ensure_service, find, repository_root
from prove.tools.progress import ConsoleProgress, Progress
from prove.tools.registry import SERVICES, TOOLS, Binary, Program, of_the_stack

__all__ = [
    "SERVICES",
    "TOOLS",
    "Binary",
    "ConsoleProgress",
    "Program",
    "Progress",
    "cache_dir",
    "check_go",
    "ensure",
    "ensure_service",
    "find",
    "of_the_stack",
    "repository_root",
    "verify",
]
