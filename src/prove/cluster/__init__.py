"""The shop on Kubernetes: `install` and `remove` for any cluster; `kind` makes one."""

from prove.cluster.forward import Forwards
from prove.cluster.install import Target, install, remove, require

__all__ = ["Forwards", "Target", "install", "remove", "require"]
