module prove/tests/cluster

go 1.25
