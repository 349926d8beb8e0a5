"""The injector of a drill stack: faults outside the services, as leases that end by themselves."""
