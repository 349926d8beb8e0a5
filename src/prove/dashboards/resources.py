"""What the shop uses: processes, their runtimes, the host, and on Kubernetes its containers."""

from prove.dashboards.parts import Board, Query, Row, choice, graph, rate, share

_OF = 'service_name=~"$service"'
_PROCESS = "service_name, service_instance_id"
_NAMED = "{{service_instance_id}}"


def board(*, kubernetes: bool) -> Board:
    """The dashboard `resources`."""
    rows = [_processes(), _go(), _python(), _host()]
    if kubernetes:
        rows.append(_containers())
    return Board(
        uid="resources",
        title="Resources",
        description="CPU, memory and runtimes of the services, and the host they run on.",
        logs="service.name:~%22${service:regex}%22",
        variables=(
            choice(
                "service",
                "Services that report on their process.",
                "label_values(process_cpu_time_seconds_total, service_name)",
                several=True,
            ),
        ),
        rows=rows,
    )


def _processes() -> Row:
    return Row(
        "Processes",
        (
            graph(
                "CPU",
                "Of one core, by service: 200% is two cores.",
                "percentunit",
                Query(
                    rate("process_cpu_time_seconds_total", "service_name", _OF), "{{service_name}}"
                ),
                span=8,
            ),
            graph(
                "Memory",
                "Of each process: resident (Python), in use by the Go runtime (Order Service).",
                "bytes",
                Query(f"max by ({_PROCESS}) (process_memory_usage_bytes{{{_OF}}})", _NAMED),
                Query(f"sum by ({_PROCESS}) (go_memory_used_bytes{{{_OF}}})", _NAMED),
                span=8,
            ),
            graph(
                "Processes",
                "Processes of each service that reported in the last minute. One that crashes "
                "comes back under another name: for that minute there is one more.",
                "short",
                Query(
                    f"count by (service_name) (time() - timestamp(target_info{{{_OF}}}) < 60)",
                    "{{service_name}}",
                ),
                span=8,
            ),
        ),
    )


def _go() -> Row:
    return Row(
        "Go runtime",
        (
            graph(
                "Goroutines",
                "A number that only grows is a leak.",
                "short",
                Query(f"max by ({_PROCESS}) (go_goroutine_count{{{_OF}}})", _NAMED),
                span=8,
            ),
            graph(
                "Heap and its goal",
                "What the Go runtime uses, and the heap size at which it collects next.",
                "bytes",
                Query(f"sum by ({_PROCESS}) (go_memory_used_bytes{{{_OF}}})", f"{_NAMED} used"),
                Query(f"max by ({_PROCESS}) (go_memory_gc_goal_bytes{{{_OF}}})", f"{_NAMED} goal"),
                span=8,
            ),
            graph(
                "Allocations",
                "Bytes allocated per second: what the garbage collector has to clear up.",
                "Bps",
                Query(rate("go_memory_allocated_bytes_total", _PROCESS, _OF), _NAMED),
                span=8,
            ),
        ),
    )


def _python() -> Row:
    return Row(
        "Python runtime",
        (
            graph(
                "Garbage collections",
                "Per second, by generation. Each of generation 2 stops a process for a while.",
                "cps",
                Query(
                    rate(
                        "cpython_gc_collections_total", "service_name, cpython_gc_generation", _OF
                    ),
                    "{{service_name}}, generation {{cpython_gc_generation}}",
                ),
                span=8,
            ),
            graph(
                "Threads",
                "Of each process; requests that wait for a thread wait longest.",
                "short",
                Query(f"max by ({_PROCESS}) (process_thread_count{{{_OF}}})", _NAMED),
                span=8,
            ),
            graph(
                "Open files",
                "File descriptors of each process: connections, databases, logs.",
                "short",
                Query(f"max by ({_PROCESS}) (process_open_file_descriptor_count{{{_OF}}})", _NAMED),
                span=8,
            ),
        ),
    )


def _host() -> Row:
    cpu = "system_cpu_time_seconds_total"
    busy = rate(cpu, "state", 'state!~"idle|interrupt"')
    disk = "system_filesystem_usage_bytes"
    return Row(
        "Host",
        (
            graph(
                "CPU of the host",
                "Share of all cores' time by what they did; idle is left out.",
                "percentunit",
                Query(
                    f"{busy} / scalar({rate(cpu)})",
                    "{{state}}",
                ),
                stacked=True,
                most=1,
            ),
            graph(
                "Load",
                "Processes that run or want to, averaged over a minute, and the cores there are.",
                "short",
                Query("max(system_cpu_load_average_1m)", "load, 1 min"),
                Query(f"count(count by (cpu) ({cpu}))", "cores"),
            ),
            graph(
                "Memory of the host",
                "By use. The kernel gives back what is cached or buffered when it is needed.",
                "bytes",
                Query("sum by (state) (system_memory_usage_bytes)", "{{state}}"),
                stacked=True,
            ),
            graph(
                "File systems",
                "Share that is used; a full one stops the databases.",
                "percentunit",
                Query(
                    share(
                        f'sum by (mountpoint) ({disk}{{state="used"}})',
                        f"sum by (mountpoint) ({disk})",
                    ),
                    "{{mountpoint}}",
                ),
                most=1,
                limit=0.9,
            ),
            graph(
                "Disks",
                "Bytes read and written per second, by device.",
                "Bps",
                Query(rate("system_disk_io_bytes_total", "device, direction"), _DIRECTED),
            ),
            graph(
                "Network",
                "Bytes received and sent per second, by device.",
                "Bps",
                Query(rate("system_network_io_bytes_total", "device, direction"), _DIRECTED),
            ),
        ),
    )


def _containers() -> Row:
    """By the kubelet's cAdvisor, whose lines without a container's name are of whole pods."""
    named = "{{pod}} {{container}}"
    each = '{container!=""}'
    memory = f"max by (pod, container) (container_memory_working_set_bytes{each})"
    cpu = (
        f"sum by (pod, container) (rate(container_cpu_usage_seconds_total{each}[$__rate_interval]))"
    )
    cores = (
        f"max by (pod, container) (container_spec_cpu_quota{each}) "
        f"/ max by (pod, container) (container_spec_cpu_period{each})"
    )
    return Row(
        "Containers (Kubernetes)",
        (
            graph(
                "CPU of containers",
                "Cores in use, as the kubelet measures them.",
                "short",
                Query(cpu, named),
            ),
            graph(
                "Memory of containers",
                "The working set: what counts against the limit.",
                "bytes",
                Query(memory, named),
            ),
            graph(
                "CPU by limit",
                "At 100% the kernel throttles the container.",
                "percentunit",
                Query(f"{cpu} / ({cores})", named),
                limit=1,
            ),
            graph(
                "Memory by limit",
                "At 100% the kernel kills the container.",
                "percentunit",
                Query(
                    f"{memory} / max by (pod, container) "
                    f"(container_spec_memory_limit_bytes{each} > 0)",
                    named,
                ),
                limit=0.9,
            ),
        ),
    )


_DIRECTED = "{{device}} {{direction}}"
