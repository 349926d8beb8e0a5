"""The shop on a cluster: installed by the chart, reached by port-forwards on the stack's ports.

So every command that talks to the stack by HTTP works against it: `provectl up --on context NAME`
puts a supervised `kubectl port-forward` where a laptop's stack has the process itself.
"""
