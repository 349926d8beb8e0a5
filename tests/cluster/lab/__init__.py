"""A real one-node Kubernetes on this machine, without a registry, for the tests.

`Cluster` brings it up in namespaces of its own (processes, mounts, network, host name) and takes
it down by ending the first process in them: nothing can stay. See docs/explanation/cluster.md.
"""

from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.kubectl import Kubectl

__all__ = ["Cluster", "Kubectl"]
