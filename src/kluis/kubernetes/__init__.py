"""The Kubernetes API, as far as kluis needs it: nodes of servers are found, and workloads woken."""
